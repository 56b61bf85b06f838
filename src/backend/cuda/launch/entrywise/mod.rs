//! Entrywise groups: how an index space is cut into blocks, and what is launched; the kernels
//! themselves are written by `write.rs`.

mod write;

use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};

use super::super::builder::{Builder, Prepared};
use super::super::driver::{Address, Command};
use super::norm;
use super::parts::Parts;
use super::walk::{Columns, Cut, PROCESSORS, Walk};
use crate::error::Result;
use crate::program::{self, Group, Instr, Kernel, Outcome};
use crate::tape::View3;
use write::{First, Named, named};

/// Threads of a block, the best first; of one that sums, too.
const THREADS: [usize; 8] = [128, 160, 192, 224, 256, 96, 64, 32];
const SUM_THREADS: [usize; 10] = [512, 448, 384, 320, 256, 192, 128, 96, 64, 32];
/// Shared memory that every card gives a block without being asked.
const SHARED: usize = 48 << 10;
/// Bytes of a thread's four columns of a sum.
const QUAD: usize = 16;
/// Index spaces from this many entries on keep a card busy even with several rows of entries at
/// once for a thread.
const MANY: usize = 1 << 18;
/// Bytes that a kernel takes as parameters; longer ones are read from device memory.
const PARAMETERS: usize = 4096;

/// Most small groups that run in one block after something else, and the most entries of each.
const MOST_FOLLOWERS: usize = 8;
const FOLLOWERS_COUNT: usize = 2048;

/// Twin of `Head`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Head {
    walk: Walk,
    post: u32,
    beside: u32,
    partials: Address,
    parts: Parts,
}

/// Twin of `Many`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Many {
    groups: Address,
    blocks: Address,
}

/// Twin of `Member`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Member {
    params: Address,
    kind: u32,
    pad: u32,
}

/// A group goes on behind sums if their blocks are at least one for so many of the processors that
/// it would have alone: fewer would take longer than a launch of its own.
const BUSY: usize = 3;

/// What stands before the group that all blocks go on with.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Gate {
    gate: Address,
    blocks: u32,
    pad: u32,
}

/// How a group is run.
struct Layout {
    walk: Walk,
    threads: usize,
    /// Rows of the walk that a thread works on at once.
    rows: usize,
    /// Sums, and the columns of each.
    sums: usize,
    post: usize,
    beside: u32,
}

impl Layout {
    fn new(group: &Group) -> Result<Layout> {
        let sum = |o: &Outcome| if let Outcome::Sum(_, view) = o { Some(view.post) } else { None };
        let sums = group.outcomes.iter().filter_map(sum).count();
        // All sums of a group have the same last axes (`fuse.rs`).
        let post = group.outcomes.iter().find_map(sum).unwrap_or(0);
        let rows = rows(group);
        let (walk, threads, beside) = if post > 0 {
            // A large block for each of an H100's multiprocessors: the fewer parts, the sooner they
            // are added.
            let fits: Vec<usize> = SUM_THREADS.into_iter().filter(|t| sums * t * QUAD <= SHARED).collect();
            let cut = Cut { blocks: PROCESSORS, each: [2, 64], at_once: rows };
            let columns = Columns::new(group.count, post, &fits, &cut)?;
            (columns.walk, columns.threads, columns.beside)
        } else {
            // Where a vector is repeated, threads keep their columns of it if they can.
            let vector = group.operands.iter().filter_map(|o| match o {
                program::Operand::Repeat(_, view) => (view.pre == 1).then_some(view.post),
                program::Operand::Full(_) | program::Operand::Constant(_) => None,
            });
            let columns = vector.max().unwrap_or(1);
            let threads = THREADS.into_iter().find(|t| (4 * t).is_multiple_of(columns)).unwrap_or(THREADS[0]);
            return Layout::plain(group, threads);
        };
        Ok(Layout { walk, threads, rows, sums, post, beside })
    }

    /// Without sums, in blocks of so many threads.
    fn plain(group: &Group, threads: usize) -> Result<Layout> {
        let rows = rows(group);
        let walk = Walk::plain(group.count, threads, rows)?;
        Ok(Layout { walk, threads, rows, sums: 0, post: 0, beside: 1 })
    }

    /// In one block of so many threads; `None` if it takes more.
    fn follower(group: &Group, threads: usize) -> Option<Layout> {
        let Layout { sums, post, .. } = Layout::new(group).ok()?;
        let walk = if sums > 0 {
            let cut = Cut { blocks: 1, each: [1, usize::MAX], at_once: 1 };
            Columns::new(group.count, post, &[threads], &cut).ok()?
        } else {
            let walk = Walk::plain(group.count, threads, group.count.div_ceil(4 * threads)).ok()?;
            Columns { walk, threads, beside: 1 }
        };
        let Columns { walk, beside, .. } = walk;
        let layout = Layout { walk, threads, rows: 1, sums, post, beside };
        (layout.one_block() && layout.shared_bytes() as usize <= SHARED).then_some(layout)
    }

    fn one_block(&self) -> bool {
        self.walk.grid() == [1, 1, 1]
    }

    /// Whether a thread's columns of an operand that is a repeated vector are the same in all rows.
    fn keeps_columns_of(&self, view: &View3) -> bool {
        view.pre == 1 && self.walk.step().is_multiple_of(view.post)
    }

    fn shared_bytes(&self) -> u32 {
        (self.sums * self.threads * QUAD) as u32
    }

    /// Whether one block sees all of a column.
    fn direct(&self) -> bool {
        self.walk.row_blocks() == 1
    }

    fn head(&self, b: &mut Builder) -> Result<Head> {
        let count = if self.sums > 0 { self.walk.row_blocks() as usize } else { 1 };
        Ok(Head {
            walk: self.walk,
            post: self.post as u32,
            beside: self.beside,
            partials: b.workspace,
            parts: Parts::new(b, 1, count, self.walk.grid()[0] as usize)?,
        })
    }
}

/// Rows of the walk for a thread at once: enough loads under way, and not so many that registers
/// run out.
fn rows(group: &Group) -> usize {
    let full = |o: &&program::Operand| matches!(o, program::Operand::Full(_));
    match group.operands.iter().filter(full).count() {
        _ if group.count < MANY => 1,
        0..=2 => 4,
        3..=6 => 2,
        _ => 1,
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

/// The group of an instruction, if it is one and has entries.
fn group(instr: &Instr) -> Option<&Group> {
    if let Kernel::Group(group) = &instr.kernel { Some(group).filter(|g| g.count > 0) } else { None }
}

/// The launch of a group, or of batch norm's statistics over so many channels; of small groups that
/// the last of its blocks runs after it; and of a large one without sums that all of its blocks go
/// on with then: of as many of the instructions after the first as the number says. `None` where
/// the first has no entries.
///
/// # Errors
/// If one is larger than kernels can count.
pub fn prepare(b: &mut Builder, instrs: &[Instr]) -> Result<Option<(Prepared, usize)>> {
    let (first, params, grid, threads, mut shared, last) = if let Kernel::Moments(c) = instrs[0].kernel {
        let Some((params, grid, threads)) = norm::prepare(b, &instrs[0], c)? else { return Ok(None) };
        (First::Moments, bytemuck::bytes_of(&params).to_vec(), grid, threads, 0, true)
    } else {
        let Some(group) = group(&instrs[0]) else { return Ok(None) };
        let layout = Layout::new(group)?;
        let written = write::write(b, &instrs[0], group, &layout)?;
        // Whether one of its blocks knows that it is the last.
        let last = layout.one_block() || layout.sums > 0 && !layout.direct();
        let first = First::Group(named(&written.text));
        (first, written.params, layout.walk.grid(), layout.threads as u32, layout.shared_bytes(), last)
    };
    let (mut params, mut kinds) = (params, Vec::new());
    for instr in instrs[1..].iter().take(if last { MOST_FOLLOWERS } else { 0 }) {
        let Some(group) = group(instr).filter(|g| g.count <= FOLLOWERS_COUNT) else { break };
        let Some(layout) = Layout::follower(group, threads as usize) else { break };
        let written = write::write(b, instr, group, &layout)?;
        if params.len() + written.params.len() > PARAMETERS {
            break;
        }
        kinds.push(named(&written.text));
        params.extend(written.params);
        shared = shared.max(layout.shared_bytes());
    }
    if params.len() > PARAMETERS {
        return prepare_many(b, &instrs[..1]).map(|launch| Some((launch, 0)));
    }
    let (mut after, mut second) = (kinds.len(), None);
    let next = instrs.get(1 + after).and_then(group).filter(|g| sum_outputs(g).next().is_none());
    let side_by_side = grid[0] as usize;
    if let Some(group) = next.filter(|_| last && (2..=b.driver.resident()).contains(&side_by_side)) {
        let layout = Layout::plain(group, threads as usize)?;
        let blocks = layout.walk.grid()[0];
        if BUSY * side_by_side >= PROCESSORS.min(blocks as usize) {
            let written = write::write(b, &instrs[1 + after], group, &layout)?;
            let gate = Gate { gate: b.gate, blocks, pad: 0 };
            if params.len() + size_of::<Gate>() + written.params.len() <= PARAMETERS {
                params.extend_from_slice(bytemuck::bytes_of(&gate));
                params.extend(written.params);
                second = Some(named(&written.text));
                after += 1;
            }
        }
    }
    let (source, name) = write::alone(first, &kinds, second, threads as usize);
    Ok(Some((Prepared { source, name, grid, block: threads, shared, params }, after)))
}

/// The one launch of several groups: of as many instructions as [`together`] says.
///
/// # Errors
/// If a group is larger than kernels can count.
pub fn prepare_many(b: &mut Builder, instrs: &[Instr]) -> Result<Prepared> {
    let (mut kinds, mut numbers): (Vec<Named>, HashMap<String, u32>) = (Vec::new(), HashMap::new());
    let (mut members, mut all_params, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut threads, mut shared) = (0, 0);
    for (number, instr) in instrs.iter().enumerate() {
        let Some(group) = group(instr) else { unreachable!("{} is no group", instr.kernel.name()) };
        let layout = Layout::new(group)?;
        let written = write::write(b, instr, group, &layout)?;
        let kind = *numbers.entry(written.text).or_insert_with_key(|text| {
            kinds.push(named(text));
            kinds.len() as u32 - 1
        });
        members.push(Member { params: all_params.len() as Address, kind, pad: 0 });
        all_params.extend(written.params);
        // Less than `MANY` entries are less than 2^16 blocks of a warp.
        blocks.extend((0..layout.walk.grid()[0]).map(|block| (number as u32) << 16 | block));
        (threads, shared) = (layout.threads, shared.max(layout.shared_bytes()));
    }
    let at = b.upload(&all_params)?;
    members.iter_mut().for_each(|m| m.params += at);
    let params = Many {
        groups: b.upload(bytemuck::cast_slice(&members))?,
        blocks: b.upload(bytemuck::cast_slice(&blocks))?,
    };
    let (source, name) = write::several(&kinds, threads);
    let params = bytemuck::bytes_of(&params).to_vec();
    let grid = [blocks.len() as u32, 1, 1];
    Ok(Prepared { source, name, grid, block: threads as u32, shared, params })
}

/// Appends the commands of a group without entries: its sums are zeros.
pub fn clear(b: &mut Builder, instr: &Instr) {
    for out in instr.outs.iter().filter(|o| o.len > 0) {
        let (to, bytes) = (b.address(out), out.len * b.width(out).bytes());
        b.commands.push(Command::Clear { to, bytes });
    }
}

/// How many of the first instructions go into one launch: small groups that do not depend on each
/// other and have blocks of one size. 0 or 1: the first goes alone.
pub fn together(instrs: &[Instr]) -> usize {
    let Some(threads) = instrs.first().and_then(small) else { return 0 };
    let follows = |n: &usize| {
        small(&instrs[*n]) == Some(threads) && !instrs[..*n].iter().any(|i| i.depends(&instrs[*n]))
    };
    // A block's word has 16 bits for the group.
    1 + (1..instrs.len().min(1 << 16)).take_while(follows).count()
}

/// For a group that is one launch of a few blocks, the threads of a block.
fn small(instr: &Instr) -> Option<usize> {
    let layout = Layout::new(group(instr).filter(|g| g.count < MANY)?).ok()?;
    (layout.sums == 0 || layout.direct()).then_some(layout.threads)
}

/// Which outputs are sums, in order.
fn sum_outputs(group: &Group) -> impl Iterator<Item = usize> {
    let sum = |(i, o): (usize, &Outcome)| if let Outcome::Sum(..) = o { Some(i) } else { None };
    group.outcomes.iter().enumerate().filter_map(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Function, Operand, Place, Step, Tensor};
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
