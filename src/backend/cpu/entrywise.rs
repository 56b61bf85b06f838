//! Groups of entrywise work: a small interpreter that runs a group's program over blocks of about a
//! thousand entries, so that everything between operands and results stays in the first-level
//! cache.

use std::ops::Range;

use super::isa::{Isa, Kernel, prefetch};
use super::par;
use super::real::Real;
use super::team;
use crate::program::{Function, Group, Operand, Outcome};
use crate::tape::{Unary, View3};

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Entries of a block, if nothing asks for more.
const BLOCK: usize = 1024;
/// Registers up to which blocks are that long: they stay in a first-level cache of 32 KiB and more
/// in f32. Where there are more, blocks are half as long.
const REGISTERS: usize = 8;
/// Entries that one task works through where there are sums, whose parts are kept per task;
/// elsewhere the most.
const TASK: usize = 32 * 1024;
/// Tasks of a group without sums, where these are shorter.
const TASKS: usize = 8;
/// Longest common period that blocks are made a multiple of.
const LONGEST_PERIOD: usize = 8192;

/// A group, prepared for running.
pub(super) struct Entrywise {
    group: Group,
    /// Entries after which sums, and what is filled once a task, repeat; and of a block, a multiple
    /// of that.
    period: usize,
    block: usize,
    blocks_per_task: usize,
    pub tasks: usize,
    /// Per operand, how it is read.
    reading: Vec<Reading>,
    /// Per step, the output that it may write directly.
    direct: Vec<Option<usize>>,
    /// Arguments that are read entry by entry, and outputs that are written right away.
    streams: (Vec<usize>, Vec<usize>),
    /// Per output, whether something must still be copied or summed.
    after: Vec<After>,
}

#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// Where it lies.
    InPlace(usize),
    /// The same in every block: filled once a task.
    Once(Fill),
    /// Filled anew for each block.
    Each(Fill),
}

#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Constant(f64),
    Repeat(usize, View3),
}

#[derive(Clone, Copy, PartialEq)]
enum After {
    Nothing,
    Copy(usize),
    Sum { register: usize, post: usize, at: usize },
}

impl Entrywise {
    /// `in_place[i]`: output `i` is written over one of the operands.
    pub fn new(group: Group, in_place: &[bool]) -> Entrywise {
        let mut period = 1;
        for outcome in &group.outcomes {
            if let Outcome::Sum(_, view) = outcome {
                period = lcm(period, view.post.max(1));
            }
        }
        let mut reading = Vec::new();
        for operand in &group.operands {
            if let Operand::Repeat(_, view) = operand {
                let common = lcm(period, view.post.max(1));
                if view.pre == 1 && common <= LONGEST_PERIOD {
                    period = common;
                }
            }
        }
        for operand in &group.operands {
            reading.push(match *operand {
                Operand::Full(arg) => Reading::InPlace(arg),
                Operand::Constant(c) => Reading::Once(Fill::Constant(c)),
                Operand::Repeat(arg, view) if view.pre == 1 && period % view.post.max(1) == 0 => {
                    Reading::Once(Fill::Repeat(arg, view))
                }
                Operand::Repeat(arg, view) => Reading::Each(Fill::Repeat(arg, view)),
            });
        }
        let registers = group.operands.len() + group.steps.len() + group.outcomes.len();
        let block = if registers > REGISTERS { BLOCK / 2 } else { BLOCK };
        let block = period * (block / period).max(1);
        let mut direct = vec![None; group.steps.len()];
        let (mut after, mut sums) = (Vec::new(), 0);
        for (i, outcome) in group.outcomes.iter().enumerate() {
            after.push(match *outcome {
                Outcome::Sum(register, view) => {
                    sums += view.post;
                    After::Sum { register, post: view.post, at: sums - view.post }
                }
                Outcome::Store(register) => {
                    let step = register.checked_sub(group.operands.len());
                    match step.filter(|s| direct[*s].is_none() && !in_place[i]) {
                        Some(step) => {
                            direct[step] = Some(i);
                            After::Nothing
                        }
                        None => After::Copy(register),
                    }
                }
            });
        }
        let read = |reading: &Reading| if let Reading::InPlace(arg) = reading { Some(*arg) } else { None };
        let streams = (reading.iter().filter_map(read).collect(), direct.iter().flatten().copied().collect());
        let task = if sums > 0 { TASK } else { TASK.min(group.count / TASKS) };
        let blocks_per_task = (task / block).max(1);
        let tasks = group.count.div_ceil(block * blocks_per_task);
        Entrywise { group, period, block, blocks_per_task, tasks, reading, direct, streams, after }
    }

    /// Entries of scratch that each thread needs.
    pub fn scratch_len(&self) -> usize {
        (self.reading.len() + self.group.steps.len() + self.after.len()) * self.block
    }

    /// Whether the group may be run in pieces that begin and end at multiples of `row` entries.
    pub fn divides(&self, row: usize) -> bool {
        row.is_multiple_of(self.period)
    }

    /// Entries for the partial sums of so many pieces.
    pub fn partials_len(&self, pieces: usize) -> usize {
        pieces * self.partials_per_task()
    }

    fn partials_per_task(&self) -> usize {
        self.after.iter().map(|a| if let After::Sum { post, .. } = a { *post } else { 0 }).sum()
    }

    /// Runs the group, in tasks of its own.
    ///
    /// # Safety
    /// As [`Shared`] asks; `partials` for all tasks.
    pub unsafe fn run<T: Real>(&self, shared: &Shared<T>) {
        let len = self.blocks_per_task * self.block;
        // SAFETY: the caller's; each task has a range of its own, and all are done in the end.
        unsafe {
            let task = |i: usize| self.piece(shared, i, i * len..((i + 1) * len).min(self.group.count));
            if self.tasks <= 1 {
                (0..self.tasks).for_each(task)
            } else {
                par::for_each(self.tasks, &task)
            }
            self.finish(shared, self.tasks);
        }
    }

    /// Runs the group on some entries, as the thread's task.
    ///
    /// # Safety
    /// As [`Shared`] asks. Pieces that run at the same time have other numbers and other entries,
    /// from multiples of the group's period on.
    pub unsafe fn piece<T: Real>(&self, shared: &Shared<T>, i: usize, entries: Range<usize>) {
        let thread = team::member();
        // SAFETY: each thread has its own scratch and runs one task at a time; each piece has its
        // own partial sums and its own range of the outputs.
        unsafe {
            let scratch = shared.scratch.add(thread * self.scratch_len());
            let partials = shared.partials.add(i * self.partials_per_task());
            Isa::best().run(Task { group: self, entries, shared, scratch, partials });
        }
    }

    /// Sums of all pieces, in order, in double precision.
    ///
    /// # Safety
    /// As [`Shared`] asks; all `pieces` have run.
    pub unsafe fn finish<T: Real>(&self, shared: &Shared<T>, pieces: usize) {
        let per_task = self.partials_per_task();
        for (after, out) in self.after.iter().zip(shared.outs) {
            if let After::Sum { post, at, .. } = after {
                for k in 0..*post {
                    // SAFETY: written by every piece; a sum has `post` entries.
                    unsafe {
                        let part = |i: usize| (*shared.partials.add(i * per_task + at + k)).to_f64();
                        *out.add(k) = T::from_f64((0..pieces).map(part).sum());
                    }
                }
            }
        }
    }

    /// One task: its blocks in order. Scratch holds operands, then steps, then running sums, a
    /// block each.
    #[inline(always)]
    unsafe fn task<T: Real>(
        &self,
        entries: Range<usize>,
        shared: &Shared<T>,
        scratch: *mut T,
        partials: *mut T,
    ) {
        let (block, operands) = (self.block, self.reading.len());
        let slot = |i: usize| scratch.wrapping_add(i * block);
        let sums = operands + self.group.steps.len();
        // SAFETY (whole function): slots are disjoint blocks of this thread's scratch; ranges of
        // arguments and outputs lie within the group's `count` entries; the caller vouches for the
        // rest.
        unsafe {
            for (i, reading) in self.reading.iter().enumerate() {
                if let Reading::Once(fill) = reading {
                    fill_block(*fill, shared, 0, std::slice::from_raw_parts_mut(slot(i), block));
                }
            }
            for i in 0..self.after.len() {
                std::slice::from_raw_parts_mut(slot(sums + i), block).fill(T::ZERO);
            }
            let Range { mut start, end } = entries;
            while start < end {
                let len = block.min(end - start);
                for (i, reading) in self.reading.iter().enumerate() {
                    if let Reading::Each(fill) = reading {
                        fill_block(*fill, shared, start, std::slice::from_raw_parts_mut(slot(i), len));
                    }
                }
                let register = |r: usize| -> *const T {
                    if r < operands {
                        return match self.reading[r] {
                            Reading::InPlace(arg) => shared.args[arg].add(start),
                            Reading::Once(_) | Reading::Each(_) => slot(r),
                        };
                    }
                    match self.direct[r - operands] {
                        Some(out) => shared.outs[out].add(start),
                        None => slot(r),
                    }
                };
                let (next, line) = (start + len, LINE / size_of::<T>());
                let lines = len.min(end - next).div_ceil(line);
                for (i, step) in self.group.steps.iter().enumerate() {
                    // A share of the next block is fetched with each step.
                    let phases = self.group.steps.len();
                    let share = lines * i / phases..lines * (i + 1) / phases;
                    for arg in &self.streams.0 {
                        let from = shared.args[*arg].wrapping_add(next);
                        share.clone().for_each(|i| prefetch::<T, false>(from.wrapping_add(i * line)));
                    }
                    for out in &self.streams.1 {
                        let to = shared.outs[*out].wrapping_add(next).cast_const();
                        share.clone().for_each(|i| prefetch::<T, true>(to.wrapping_add(i * line)));
                    }
                    let a = std::slice::from_raw_parts(register(step.a), len);
                    let b = std::slice::from_raw_parts(register(step.b), len);
                    let to = std::slice::from_raw_parts_mut(register(operands + i).cast_mut(), len);
                    compute(step.function, a, b, to);
                }
                // Sums first: a result that is copied over its own operand would change what they
                // add.
                for (i, after) in self.after.iter().enumerate() {
                    if let After::Sum { register: r, .. } = after {
                        let to = std::slice::from_raw_parts_mut(slot(sums + i), len);
                        let from = std::slice::from_raw_parts(register(*r), len);
                        to.iter_mut().zip(from).for_each(|(t, f)| *t += *f);
                    }
                }
                for (i, after) in self.after.iter().enumerate() {
                    if let After::Copy(r) = after {
                        let to = shared.outs[i].add(start);
                        if register(*r) != to.cast_const() {
                            std::ptr::copy_nonoverlapping(register(*r), to, len);
                        }
                    }
                }
                start += len;
            }
            for (i, after) in self.after.iter().enumerate() {
                if let After::Sum { post, at, .. } = after {
                    let sums = std::slice::from_raw_parts_mut(slot(sums + i), block);
                    fold(sums, *post);
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), partials.add(*at), *post);
                }
            }
        }
    }
}

/// A task, compiled for the machine's instruction set.
struct Task<'a, T> {
    group: &'a Entrywise,
    entries: Range<usize>,
    shared: &'a Shared<'a, T>,
    scratch: *mut T,
    partials: *mut T,
}

impl<T: Real> Kernel for Task<'_, T> {
    #[inline(always)]
    fn run(self) {
        // SAFETY: made by `Entrywise::piece` alone, which gives each task scratch and partial sums
        // of its own.
        unsafe { self.group.task(self.entries, self.shared, self.scratch, self.partials) }
    }
}

/// What a group reads and writes, for tasks on several threads at once: each touches its own part.
///
/// Pointers must be good for the lengths that the group was made for. Outputs overlap no argument
/// but where `in_place` said so (then exactly), and no other output.
pub(super) struct Shared<'a, T> {
    pub args: &'a [*const T],
    pub outs: &'a [*mut T],
    /// `scratch_len()` entries for each thread of the team.
    pub scratch: *mut T,
    /// `partials_len()` of all pieces.
    pub partials: *mut T,
}
// SAFETY: see `Entrywise::piece`; tasks write disjoint ranges.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

#[inline(always)]
unsafe fn fill_block<T: Real>(fill: Fill, shared: &Shared<T>, start: usize, to: &mut [T]) {
    match fill {
        Fill::Constant(c) => to.fill(T::from_f64(c)),
        Fill::Repeat(arg, View3 { pre, mid, post }) => {
            // SAFETY: the argument has shape [pre, post].
            let from = unsafe { std::slice::from_raw_parts(shared.args[arg], pre * post) };
            let (mut at, mut done) = (start, 0);
            while done < to.len() {
                let (row, column) = (at / (mid * post) % pre, at % post);
                let run = if post == 1 { mid - at % mid } else { post - column };
                let run = run.min(to.len() - done);
                let part = &mut to[done..done + run];
                if post == 1 {
                    part.fill(from[row]);
                } else {
                    part.copy_from_slice(&from[row * post + column..][..run]);
                }
                at += run;
                done += run;
            }
        }
    }
}

#[inline(always)]
fn compute<T: Real>(function: Function, a: &[T], b: &[T], to: &mut [T]) {
    let pairs = to.iter_mut().zip(a.iter().zip(b));
    let each = |to: &mut [T], f: &dyn Fn(T) -> T| to.iter_mut().zip(a).for_each(|(t, a)| *t = f(*a));
    match function {
        Function::Add => pairs.for_each(|(t, (a, b))| *t = *a + *b),
        Function::Mul => pairs.for_each(|(t, (a, b))| *t = *a * *b),
        // What is not a number stays so: b <= 0 is false there.
        Function::Mask => pairs.for_each(|(t, (a, b))| *t = if *b <= T::ZERO { T::ZERO } else { *a }),
        // b < a is false, too, where a is not a number.
        Function::Max => pairs.for_each(|(t, (a, b))| *t = if *b > *a || b.is_nan() { *b } else { *a }),
        Function::Scale(c) => {
            let c = T::from_f64(c);
            to.iter_mut().zip(a).for_each(|(t, a)| *t = c * *a);
        }
        Function::Offset(c) => {
            let c = T::from_f64(c);
            to.iter_mut().zip(a).for_each(|(t, a)| *t = *a + c);
        }
        Function::Unary(Unary::Sqrt) => to.iter_mut().zip(a).for_each(|(t, a)| *t = a.sqrt()),
        Function::Unary(Unary::Recip) => {
            to.iter_mut().zip(a).for_each(|(t, a)| *t = if *a == T::ZERO { T::ZERO } else { T::ONE / *a });
        }
        Function::Unary(Unary::Sigmoid) => each(to, &sigmoid),
        Function::Unary(Unary::Exp) => each(to, &|a| a.exp()),
        Function::Unary(Unary::Log) => each(to, &|a| a.ln()),
        Function::Unary(Unary::Tanh) => each(to, &|a| a.tanh()),
        Function::Unary(Unary::Softplus) => each(to, &softplus),
        Function::Unary(Unary::Erf) => each(to, &|a| a.erf()),
        Function::Unary(Unary::Pow(c)) => {
            let c = T::from_f64(c.0);
            each(to, &|a| a.powf(c));
        }
    }
}

/// `1/(1+e^{−x})` without overflow.
fn sigmoid<T: Real>(x: T) -> T {
    if x >= T::ZERO {
        T::ONE / (T::ONE + (-x).exp())
    } else {
        let e = x.exp();
        e / (T::ONE + e)
    }
}

/// `ln(1+e^x)` without overflow.
fn softplus<T: Real>(x: T) -> T {
    let above = if x > T::ZERO { x } else { T::ZERO };
    above + (-x.abs()).exp().ln_1p()
}

/// Sums of every `post`-th entry, into the first `post`: halves are added while there is an even
/// number of rows.
fn fold<T: Real>(sums: &mut [T], post: usize) {
    let mut rows = sums.len() / post;
    while rows > 1 {
        let half = rows / 2;
        let odd = rows - half; // the middle row of an odd number stays
        let (low, high) = sums.split_at_mut(odd * post);
        low.iter_mut().zip(&high[..half * post]).for_each(|(l, h)| *l += *h);
        rows = odd;
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
