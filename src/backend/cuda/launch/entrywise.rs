//! Entrywise groups: the words that `kernels/entrywise.cu` interprets, and how an index space is
//! cut into blocks.

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::divide::FastDiv;
use super::super::driver::{Address, Command};
use super::super::sources::ENTRYWISE;
use super::assemble::{Assembled, Code, Instruction, assemble};
use super::reduce;
use super::walk::{Columns, Cut, Operand, Walk};
use crate::error::{Error, Result};
use crate::program::{Group, Instr, Kernel, Outcome, Place, Tensor};

/// `kernels/entrywise.cu`.
/// Words of a program that fit into the parameters.
const INLINE_WORDS: usize = 512;
/// Shared memory that every card gives a block without being asked.
const SHARED: usize = 48 << 10;
/// Bytes of a thread's register for four entries.
const QUAD: usize = 16;
/// Index spaces from this many entries on keep a card busy even with two rows of entries at once
/// for a thread.
const MANY: usize = 1 << 18;

/// Twin of `Group`, and of `Stored`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Head {
    walk: Walk,
    loads: u32,
    ops: u32,
    sums: u32,
    registers: u32,
    post: u32,
    beside: u32,
    direct: u32,
    sum_tensors: u32,
    repeats_at: u32,
    ops_at: u32,
    program: u64,
    partials: u64,
}

/// Twin of `Inline`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Inline {
    head: Head,
    words: [u32; INLINE_WORDS],
}

/// Twin of `Many`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Many {
    groups: Address,
    blocks: Address,
}

/// How a group is run.
struct Layout {
    assembled: Assembled,
    walk: Walk,
    threads: usize,
    /// Rows of the walk that a thread works on at once: 1 or 2.
    at_once: usize,
    /// Sums, and the columns of each.
    sums: usize,
    post: usize,
    beside: u32,
}

impl Layout {
    fn new(group: &Group) -> Result<Layout> {
        let assembled = assemble(group);
        let sum = |o: &Outcome| if let Outcome::Sum(_, view) = o { Some(view.post) } else { None };
        let sums = group.outcomes.iter().filter_map(sum).count();
        // All sums of a group have the same last axes (`fuse.rs`).
        let post = group.outcomes.iter().find_map(sum).unwrap_or(0);
        let shared = |threads: usize, at_once: usize| (assembled.registers * at_once + sums) * threads * QUAD;
        for at_once in if group.count >= MANY { [2, 1] } else { [1, 1] } {
            let choice: Vec<usize> = [128, 160, 192, 224, 256, 96, 64, 32]
                .into_iter()
                .filter(|threads| shared(*threads, at_once) <= SHARED)
                .collect();
            // Blocks of less than four warps only where nothing else fits.
            let Some(threads) = choice.iter().copied().find(|t| *t >= 128 || at_once == 1) else { continue };
            let (walk, threads, beside) = if post > 0 {
                let cut = Cut { blocks: 528, each: [4, 64], at_once };
                let columns = Columns::new(group.count, post, &choice, &cut)?;
                (columns.walk, columns.threads, columns.beside)
            } else {
                (Walk::plain(group.count, threads, at_once)?, threads, 1)
            };
            return Ok(Layout { walk, threads, at_once, sums, post, beside, assembled });
        }
        let registers = assembled.registers;
        Err(Error::Program(format!(
            "a group of entrywise work needs {registers} registers, more than a block has"
        )))
    }

    fn shared_bytes(&self) -> usize {
        (self.assembled.registers * self.at_once + self.sums) * self.threads * QUAD
    }

    /// Whether one block sees all of a column.
    fn direct(&self) -> bool {
        self.walk.row_blocks() == 1
    }
}

/// Bytes of the partial sums of all blocks.
pub fn workspace_bytes(group: &Group) -> usize {
    // What is wrong is said by `build`.
    let Ok(layout) = Layout::new(group) else { return 0 };
    if layout.sums == 0 || layout.direct() {
        return 0;
    }
    layout.walk.row_blocks() as usize * layout.sums * layout.post * size_of::<f64>()
}

/// Appends a group's commands.
///
/// # Errors
/// If the group is larger than the kernel can count or hold.
pub fn build(b: &mut Builder, instr: &Instr, group: &Group) -> Result<()> {
    if group.count == 0 {
        for out in instr.outs.iter().filter(|o| o.len > 0) {
            let (to, bytes) = (b.address(out), out.len * b.width(out).bytes());
            b.commands.push(Command::Clear { to, bytes });
        }
        return Ok(());
    }
    let layout = Layout::new(group)?;
    let (mut head, words) = head(b, instr, group, &layout)?;
    let (grid, threads) = (layout.walk.grid(), layout.threads as u32);
    let shared = layout.shared_bytes() as u32;
    let name = if layout.at_once == 1 { "entrywise_1" } else { "entrywise_2" };
    if words.len() > INLINE_WORDS {
        head.program = b.upload(bytemuck::cast_slice(&words))?;
        b.launch(ENTRYWISE, &format!("{name}_long"), grid, threads, shared, &head)?;
    } else {
        let mut params = Inline { head, words: [0; INLINE_WORDS] };
        params.words[..words.len()].copy_from_slice(&words);
        b.launch(ENTRYWISE, name, grid, threads, shared, &params)?;
    }
    if layout.sums > 0 && !layout.direct() {
        let outs: Vec<Operand> = sum_outputs(group).map(|i| Operand::of(b, &instr.outs[i])).collect();
        reduce::totals(b, layout.walk.row_blocks(), &outs, layout.post)?;
    }
    Ok(())
}

/// A group's parameters but for the address of its words, and the words.
fn head(b: &Builder, instr: &Instr, group: &Group, layout: &Layout) -> Result<(Head, Vec<u32>)> {
    let words = Words::new(b, instr, group, layout)?;
    let head = Head {
        walk: layout.walk,
        loads: layout.assembled.loads.len() as u32,
        ops: layout.assembled.instructions.len() as u32,
        sums: layout.sums as u32,
        registers: layout.assembled.registers as u32,
        post: layout.post as u32,
        beside: layout.beside,
        direct: u32::from(layout.direct()),
        sum_tensors: words.sum_tensors,
        repeats_at: words.repeats_at,
        ops_at: words.ops_at,
        program: 0,
        partials: b.workspace,
    };
    Ok((head, words.all))
}

/// How many of the first instructions go into one launch of [`build_together`]: small groups that
/// do not depend on each other and have blocks of one size. 0 or 1: the first goes alone.
pub fn together(instrs: &[Instr]) -> usize {
    let Some(threads) = instrs.first().and_then(small) else { return 0 };
    let follows = |n: &usize| {
        small(&instrs[*n]) == Some(threads) && !instrs[..*n].iter().any(|i| depend(i, &instrs[*n]))
    };
    // A block's word has 16 bits for the group.
    1 + (1..instrs.len().min(1 << 16)).take_while(follows).count()
}

/// For a group that is one launch of a few blocks, the threads of a block.
fn small(instr: &Instr) -> Option<usize> {
    let Kernel::Group(group) = &instr.kernel else { return None };
    if group.count == 0 || group.count >= MANY {
        return None;
    }
    let layout = Layout::new(group).ok()?;
    (layout.at_once == 1 && (layout.sums == 0 || layout.direct())).then_some(layout.threads)
}

/// Whether one of two instructions must come before the other.
fn depend(a: &Instr, b: &Instr) -> bool {
    let meet = |xs: &[Tensor], ys: &[Tensor]| xs.iter().any(|x| ys.iter().any(|y| overlap(x, y)));
    meet(&a.outs, &b.outs) || meet(&a.outs, &b.args) || meet(&a.args, &b.outs)
}

/// Whether two tensors share memory.
fn overlap(a: &Tensor, b: &Tensor) -> bool {
    let (from_a, from_b) = match (a.place, b.place) {
        (Place::Arena(x), Place::Arena(y)) => (x, y),
        (Place::State(i, x), Place::State(j, y)) | (Place::Input(i, x), Place::Input(j, y)) if i == j => {
            (x, y)
        }
        (Place::Arena(_) | Place::State(..) | Place::Input(..), _) => return false,
    };
    from_a < from_b + b.len && from_b < from_a + a.len
}

/// Appends the one launch of groups that [`together`] has found.
///
/// # Errors
/// As [`build`].
pub fn build_together(b: &mut Builder, instrs: &[Instr]) -> Result<()> {
    let (mut heads, mut all_words, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut threads, mut shared) = (0, 0);
    for (number, instr) in instrs.iter().enumerate() {
        let Kernel::Group(group) = &instr.kernel else { unreachable!("{} is no group", instr.kernel.name()) };
        let layout = Layout::new(group)?;
        let (head, words) = head(b, instr, group, &layout)?;
        heads.push((head, all_words.len()));
        all_words.extend(words);
        // Less than `MANY` entries are less than 2^16 blocks of a warp.
        blocks.extend((0..layout.walk.grid()[0]).map(|block| (number as u32) << 16 | block));
        (threads, shared) = (layout.threads, shared.max(layout.shared_bytes()));
    }
    let program = b.upload(bytemuck::cast_slice(&all_words))?;
    let stored: Vec<Head> =
        heads.iter().map(|(head, at)| Head { program: program + 4 * *at as Address, ..*head }).collect();
    let params = Many {
        groups: b.upload(bytemuck::cast_slice(&stored))?,
        blocks: b.upload(bytemuck::cast_slice(&blocks))?,
    };
    let grid = [blocks.len() as u32, 1, 1];
    b.launch(ENTRYWISE, "entrywise_1_many", grid, threads as u32, shared as u32, &params)
}

/// Which outputs are sums, in order.
fn sum_outputs(group: &Group) -> impl Iterator<Item = usize> {
    let sum = |(i, o): (usize, &Outcome)| if let Outcome::Sum(..) = o { Some(i) } else { None };
    group.outcomes.iter().enumerate().filter_map(sum)
}

/// A program as the kernel reads it: tensors, then repeats, then loads and instructions.
struct Words {
    all: Vec<u32>,
    sum_tensors: u32,
    repeats_at: u32,
    ops_at: u32,
}

impl Words {
    fn new(b: &Builder, instr: &Instr, group: &Group, layout: &Layout) -> Result<Words> {
        let aligned = layout.walk.aligned();
        let mut tensors: Vec<Operand> = Vec::new();
        let mut repeats: Vec<[FastDiv; 2]> = Vec::new();
        let mut ops: Vec<([usize; 4], f32)> = Vec::new();
        for (to, arg) in &layout.assembled.loads {
            ops.push(([0, *to, tensors.len(), 0], 0.0));
            tensors.push(Operand::of(b, &instr.args[*arg]).vector_if(aligned));
        }
        let sums: Vec<usize> = sum_outputs(group).collect();
        for instruction in &layout.assembled.instructions {
            ops.push(match *instruction {
                Instruction::Compute { code, to, a, b, c } => ([code as usize, to, a, b], c),
                Instruction::Number { to, arg } => {
                    tensors.push(Operand::of(b, &instr.args[arg]));
                    ([Code::Number as usize, to, tensors.len() - 1, 0], 0.0)
                }
                Instruction::Repeat { to, arg, view } => {
                    let neighbours = aligned && view.post.is_multiple_of(4);
                    tensors.push(Operand::of(b, &instr.args[arg]).vector_if(neighbours));
                    repeats.push([FastDiv::new(view.post), FastDiv::new(view.mid * view.post)]);
                    ([Code::Repeat as usize, to, tensors.len() - 1, repeats.len() - 1], 0.0)
                }
                Instruction::Store { from, out } => {
                    tensors.push(Operand::of(b, &instr.outs[out]).vector_if(aligned));
                    ([Code::Store as usize, 0, from, tensors.len() - 1], 0.0)
                }
                Instruction::Sum { from, out } => {
                    let number = sums.iter().position(|s| *s == out).unwrap_or_default();
                    ([Code::Sum as usize, number, from, 0], 0.0)
                }
            });
        }
        let sum_tensors = tensors.len() as u32;
        tensors.extend(sums.iter().map(|s| Operand::of(b, &instr.outs[*s])));
        if tensors.len().max(repeats.len()).max(layout.assembled.registers) > 256 {
            return Err(Error::Program(format!(
                "a group of entrywise work takes {} tensors and {} registers; kernels count to 256",
                tensors.len(),
                layout.assembled.registers
            )));
        }
        let mut all: Vec<u32> = bytemuck::cast_slice(&tensors).to_vec();
        let repeats_at = all.len() as u32;
        all.extend_from_slice(bytemuck::cast_slice(&repeats));
        let ops_at = all.len() as u32;
        for ([code, to, x, y], c) in ops {
            all.extend([(code | to << 8 | x << 16 | y << 24) as u32, c.to_bits()]);
        }
        Ok(Words { all, sum_tensors, repeats_at, ops_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Function, Operand, Step};
    use crate::tape::Kind;

    /// `out ← 2·arg` on so many entries.
    fn doubled(count: usize, arg: Place, out: Place) -> Instr {
        let group = Group {
            count,
            operands: vec![Operand::Full(0), Operand::Constant(2.0)],
            steps: vec![Step { function: Function::Mul, a: 0, b: 1 }],
            outcomes: vec![Outcome::Store(2)],
        };
        let tensor = |place| Tensor { place, len: count, kind: Kind::Float, activation: false };
        Instr { kernel: Kernel::Group(group), args: vec![tensor(arg)], outs: vec![tensor(out)] }
    }

    #[test]
    fn small_groups_that_do_not_depend_on_each_other_go_together() {
        let arena = Place::Arena;
        let first = doubled(64, arena(0), arena(0));
        assert_eq!(together(&[]), 0);
        assert_eq!(together(std::slice::from_ref(&first)), 1);
        // In place, out of place, of a state.
        let others =
            [doubled(36, arena(64), arena(200)), doubled(64, Place::State(0, 0), Place::State(0, 0))];
        let all = |last: Instr| [std::slice::from_ref(&first), &others, &[last]].concat();
        assert_eq!(together(&all(doubled(7, arena(300), Place::State(1, 0)))), 4);
        // Reads what another one writes, writes what another one reads, and writes what another one
        // writes.
        assert_eq!(together(&all(doubled(7, arena(63), arena(300)))), 3);
        assert_eq!(together(&all(doubled(7, arena(300), arena(99)))), 3);
        assert_eq!(together(&all(doubled(7, arena(300), Place::State(0, 63)))), 3);
        // Another state, another input than a state.
        assert_eq!(together(&all(doubled(7, Place::Input(0, 0), Place::State(1, 0)))), 4);
        // Large enough to be alone.
        assert_eq!(together(&all(doubled(MANY, arena(1 << 20), arena(1 << 20)))), 3);
        assert_eq!(together(&[doubled(MANY, arena(0), arena(0)), first]), 0);
    }
}
