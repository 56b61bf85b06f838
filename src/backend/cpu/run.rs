//! One instruction: its operands' slices, and the kernel that takes them.

use std::ops::Range;

use super::conv::{self, Output, Tail};
use super::entrywise::{Entrywise, Shared};
use super::memory::{Buffer, Loaded, Way};
use super::pool::{self, PoolShape};
use super::real::Real;
use super::structure::{self, GatherShape, SubsampleShape};
use super::{gemm, norm, reduce, xent};
use crate::program::{Dims, Instr, Kernel, NEAR, Place, Tensor};
use crate::tape::{Role, Strided, Window};

/// Entries of workspace that a kernel asks for (groups ask for theirs themselves).
pub(super) fn workspace_len<T: Real>(instr: &Instr) -> usize {
    match &instr.kernel {
        Kernel::Contract { dims, out, .. } => match *dims {
            Dims::Conv(shape) => conv::workspace_len::<T>(&shape, *out),
            Dims::Gemm { .. } => 0,
        },
        Kernel::Sum(view) => reduce::workspace_len(view.pre, view.mid, view.post),
        Kernel::Moments(c) => norm::workspace_len(instr.args[0].len / (*c).max(1), *c),
        Kernel::Group(_) | Kernel::Select(..) | Kernel::Unselect(..) => 0,
        Kernel::Subsample(..) | Kernel::Embed(..) | Kernel::Unrow(_) | Kernel::Stack => 0,
        Kernel::Softmax(_) | Kernel::CrossEntropy | Kernel::Residual | Kernel::WeightedResidual => 0,
        Kernel::Correct | Kernel::Gather(..) | Kernel::Copy => 0,
    }
}

/// The instruction that runs inside of number `i`, a convolution, on what that has just written,
/// and in how many pieces. None in between touches what it does.
pub(super) fn inside<T: Real>(
    instrs: &[Instr],
    groups: &[Option<Entrywise>],
    i: usize,
) -> Option<(usize, usize)> {
    let Kernel::Contract { dims: Dims::Conv(shape), out, .. } = &instrs[i].kernel else { return None };
    let row = if *out == Role::A { shape.w * shape.ci } else { shape.ow() * shape.co };
    let pieces = conv::pieces::<T>(shape, *out);
    let fits = |next: &usize| {
        instrs[*next].may_run_within(&instrs[i])
            && groups[*next].as_ref().is_none_or(|group| group.divides(row))
            && !instrs[i + 1..*next].iter().any(|between| between.depends(&instrs[*next]))
    };
    let next = (i + 1..instrs.len().min(i + 1 + NEAR)).find(fits)?;
    (pieces > 0).then_some((next, pieces))
}

/// Entries of partial results that `instr` leaves in so many pieces.
pub(super) fn partials_len(instr: &Instr, group: Option<&Entrywise>, pieces: usize) -> usize {
    let of_moments = || pieces * norm::partial_len(instr.outs[0].len / 2);
    group.map_or_else(of_moments, |g| g.partials_len(pieces))
}

/// Rows, columns and summed extent of the product that gives `out`, of a form with A `[m,k]`, B
/// `[k,n]`.
fn product_extents(out: Role, m: usize, n: usize, k: usize) -> [usize; 3] {
    match out {
        Role::C => [m, n, k],
        Role::A => [m, k, n],
        Role::B => [k, n, m],
    }
}

/// The memory of a program while it runs. Tensors are handed out as slices by place; the plan
/// vouches that an instruction's outputs overlap nothing else of it, but for groups that work in
/// place, which take pointers.
struct Memory<'a, T> {
    arena: *mut T,
    states: &'a mut [Buffer<T>],
    state_numbers: &'a [usize],
    inputs: &'a mut [Buffer<T>],
}

impl<T: Real> Memory<'_, T> {
    fn pointer(&mut self, tensor: &Tensor) -> *mut T {
        let buffer = match tensor.place {
            // SAFETY: the plan's arena holds every tensor that is placed in it.
            Place::Arena(at) => return unsafe { self.arena.add(at) },
            Place::State(i, at) => (&mut self.states[self.state_numbers[i]], at),
            Place::Input(i, at) => (&mut self.inputs[i], at),
        };
        match buffer {
            (Buffer::Float(v), at) => v[at..at + tensor.len].as_mut_ptr(),
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn read<'s>(&mut self, tensor: &Tensor) -> &'s [T] {
        let pointer = self.pointer(tensor);
        // SAFETY: `pointer` is good for `len` entries while the program runs; the plan lets nothing
        // write to them in the same instruction.
        unsafe { std::slice::from_raw_parts(pointer, tensor.len) }
    }

    fn write<'s>(&mut self, tensor: &Tensor) -> &'s mut [T] {
        let pointer = self.pointer(tensor);
        // SAFETY: as for `read`; an instruction's outputs overlap nothing else that it takes.
        unsafe { std::slice::from_raw_parts_mut(pointer, tensor.len) }
    }

    fn ints(&self, tensor: &Tensor) -> &[i32] {
        match self.buffer(tensor) {
            (Buffer::Int(v), at) => &v[at..at + tensor.len],
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn bytes(&self, tensor: &Tensor) -> &[u8] {
        match self.buffer(tensor) {
            (Buffer::Byte(v), at) => &v[at..at + tensor.len],
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn buffer(&self, tensor: &Tensor) -> (&Buffer<T>, usize) {
        match tensor.place {
            Place::State(i, at) => (&self.states[self.state_numbers[i]], at),
            Place::Input(i, at) => (&self.inputs[i], at),
            Place::Arena(_) => unreachable!("arenas hold floating-point tensors only"),
        }
    }
}

/// Most operands that a group takes or gives (`fuse.rs` stays below).
const MAX_OPERANDS: usize = 128;

/// A number type whose programs can be run.
///
/// `Cpu<T>` is compiled by whoever names its T. The kernels are not: this is, once a type, where it
/// is implemented. Otherwise every user of the library would compile all of them again.
pub trait Run: Sized {
    /// Runs all instructions in order; `after` is called with the number of each that is done.
    fn run(program: &mut Loaded<Self>, states: &mut [Buffer<Self>], after: &mut (dyn FnMut(usize) + Send));
}

macro_rules! run {
    ($($t:ty),+) => {$(
        impl Run for $t {
            #[inline(never)]
            fn run(program: &mut Loaded<$t>, states: &mut [Buffer<$t>], after: &mut (dyn FnMut(usize) + Send)) {
                run(program, states, after);
            }
        }
    )+};
}
run!(f32, f64);

fn run<T: Real>(program: &mut Loaded<T>, states: &mut [Buffer<T>], after: &mut (dyn FnMut(usize) + Send)) {
    let Loaded { plan, states: state_numbers, inputs, arena, start, groups, ways, workspace, scratch } =
        program;
    let arena = arena[*start..].as_mut_ptr();
    let mut memory = Memory { arena, states, state_numbers, inputs };
    for (i, instr) in plan.instrs.iter().enumerate() {
        match (ways[i], &groups[i]) {
            (Way::Within, _) => {}
            (Way::Around { next, pieces }, _) => {
                let inner = (&plan.instrs[next], groups[next].as_ref());
                around(instr, inner, pieces, &mut memory, scratch, workspace);
            }
            (Way::Alone, Some(group)) => {
                let pointers = Pointers::of(instr, &mut memory);
                // SAFETY: the plan gives every operand its length and lets outputs overlap
                // arguments only where the group was told so; scratch and workspace have the
                // lengths that the group asked for.
                unsafe { group.run(&pointers.shared(scratch, workspace)) };
            }
            (Way::Alone, None) => kernel(instr, &mut memory, workspace, None),
        }
        after(i);
    }
}

/// Where the operands of a group, or of statistics, lie.
struct Pointers<T> {
    args: [*const T; MAX_OPERANDS],
    outs: [*mut T; MAX_OPERANDS],
    /// How many of each.
    count: (usize, usize),
}

impl<T: Real> Pointers<T> {
    fn of(instr: &Instr, memory: &mut Memory<T>) -> Pointers<T> {
        let (mut args, mut outs) = ([std::ptr::null(); MAX_OPERANDS], [std::ptr::null_mut(); MAX_OPERANDS]);
        for (pointer, arg) in args.iter_mut().zip(&instr.args) {
            *pointer = memory.pointer(arg).cast_const();
        }
        for (pointer, out) in outs.iter_mut().zip(&instr.outs) {
            *pointer = memory.pointer(out);
        }
        Pointers { args, outs, count: (instr.args.len(), instr.outs.len()) }
    }

    fn shared(&self, scratch: &mut [T], partials: &mut [T]) -> Shared<'_, T> {
        let (args, outs) = (&self.args[..self.count.0], &self.outs[..self.count.1]);
        Shared { args, outs, scratch: scratch.as_mut_ptr(), partials: partials.as_mut_ptr() }
    }
}

/// A convolution, and what runs on each of so many pieces of its output as soon as that is written:
/// `inner`, a group or statistics.
fn around<T: Real>(
    instr: &Instr,
    (inner, group): (&Instr, Option<&Entrywise>),
    pieces: usize,
    memory: &mut Memory<T>,
    scratch: &mut [T],
    workspace: &mut [T],
) {
    let (partials, own) = workspace.split_at_mut(partials_len(inner, group, pieces));
    let pointers = Pointers::of(inner, memory);
    let shared = pointers.shared(scratch, partials);
    if let Some(group) = group {
        // SAFETY: as for a group alone; pieces are disjoint rows, of which the group's period is a
        // part, what the group writes there the convolution neither reads nor writes any more, and
        // all have run in the end.
        unsafe {
            kernel(instr, memory, own, Some(&|i, entries| group.piece(&shared, i, entries)));
            group.finish(&shared, pieces);
        }
        return;
    }
    let len = norm::partial_len(inner.outs[0].len / 2);
    let tail = |i: usize, entries: Range<usize>| {
        let shared = &shared;
        // SAFETY: the piece has been written, and nobody else has its part of the partial results.
        unsafe {
            let x = std::slice::from_raw_parts(shared.args[0].add(entries.start), entries.len());
            norm::piece(x, std::slice::from_raw_parts_mut(shared.partials.add(i * len), len));
        }
    };
    kernel(instr, memory, own, Some(&tail));
    norm::total(partials, memory.write(&inner.outs[0]));
}

/// `tail`: what runs on each piece of a convolution's output.
fn kernel<T: Real>(instr: &Instr, memory: &mut Memory<T>, workspace: &mut [T], tail: Option<&Tail>) {
    let Instr { kernel, args, outs } = instr;
    let arg = |memory: &mut Memory<T>, i: usize| memory.read(&args[i]);
    let out = memory.write(&outs[0]);
    match kernel {
        Kernel::Contract { out: role, dims, accumulate, .. } => {
            let (a, b) = (arg(memory, 0), arg(memory, 1));
            match *dims {
                Dims::Conv(shape) => match role {
                    Role::C => {
                        let (mut accumulate, mut pairs) = (*accumulate, args.chunks_exact(2));
                        while let Some([x, w]) = pairs.next() {
                            let tail = tail.filter(|_| pairs.len() == 0);
                            let y = Output { to: &mut *out, accumulate, tail };
                            conv::forward(&shape, memory.read(x), memory.read(w), y, workspace);
                            accumulate = true;
                        }
                    }
                    Role::A => {
                        let dx = Output { to: out, accumulate: *accumulate, tail };
                        conv::data_gradient(&shape, a, b, dx, workspace);
                    }
                    Role::B => conv::weight_gradient(&shape, a, b, out, *accumulate, workspace),
                },
                Dims::Gemm { m, n, k } => {
                    let [m, n, k] = product_extents(*role, m, n, k);
                    let (ta, tb, a, b) = match role {
                        Role::C => (false, false, a, b),
                        // (B [k,n], C [m,n]): A = C·Bᵀ
                        Role::A => (false, true, b, a),
                        // (A [m,k], C [m,n]): B = Aᵀ·C
                        Role::B => (true, false, a, b),
                    };
                    gemm::gemm(ta, tb, m, n, k, a, b, out, *accumulate);
                }
            }
        }
        Kernel::Group(_) => unreachable!("groups are prepared and run apart"),
        Kernel::Sum(view) => reduce::sum(view.pre, view.mid, view.post, arg(memory, 0), out, workspace),
        Kernel::Select(window, shape) => {
            let v = arg(memory, 0);
            let x = if args.len() > 1 { arg(memory, 1) } else { v };
            pool::select(&pool_shape(*window, *shape), v, x, out);
        }
        Kernel::Unselect(window, shape) => {
            let (ct, x) = (arg(memory, 0), arg(memory, 1));
            pool::unselect(&pool_shape(*window, *shape), ct, x, out);
        }
        Kernel::Subsample(how, shape) => {
            structure::subsample(&subsample_shape(*how, *shape), arg(memory, 0), out);
        }
        Kernel::Embed(how, shape) => structure::embed(&subsample_shape(*how, *shape), arg(memory, 0), out),
        Kernel::Unrow(at) => {
            out.fill(T::ZERO);
            let row = arg(memory, 0);
            out[*at..at + row.len()].copy_from_slice(row);
        }
        Kernel::Stack => {
            for (i, row) in out.chunks_exact_mut(args[0].len.max(1)).enumerate() {
                row.copy_from_slice(arg(memory, i));
            }
        }
        Kernel::Moments(_) => norm::moments(arg(memory, 0), out, workspace),
        Kernel::Softmax(k) => xent::softmax(args[0].len / k, arg(memory, 0), out),
        Kernel::CrossEntropy => xent::cross_entropy(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::Residual => xent::residual(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::WeightedResidual => {
            let weights = arg(memory, 2);
            xent::weighted_residual(arg(memory, 0), memory.ints(&args[1]), weights, out);
        }
        Kernel::Correct => xent::correct(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::Gather(spec, [h, w, c]) => {
            let shape = GatherShape { h: *h, w: *w, c: *c, pad: spec.pad };
            let picks: &[[i32; 4]] = bytemuck::cast_slice(memory.ints(&args[1]));
            structure::gather(&shape, memory.bytes(&args[0]), picks, &spec.mean, &spec.std, out);
        }
        Kernel::Copy => out.copy_from_slice(arg(memory, 0)),
    }
}

fn pool_shape(window: Window, [n, h, w, c]: [usize; 4]) -> PoolShape {
    PoolShape { n, h, w, c, k: window.size, stride: window.stride }
}

fn subsample_shape(how: Strided, [n, h, w, c]: [usize; 4]) -> SubsampleShape {
    SubsampleShape { n, h, w, c, stride: how.stride, before: how.before, after: how.after }
}
