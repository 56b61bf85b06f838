//! What kernels are told of tensors and of the way through them; twin of `kernels/tensor.cuh`.

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::driver::{Address, Width};
use crate::error::{Error, Result};
use crate::program::Tensor;

/// A tensor in device memory; twin of `Tensor`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(super) struct Operand {
    pub at: Address,
    half: u32,
    vector: u32,
}

impl Operand {
    /// Entries of a width at an address.
    pub fn new(at: Address, width: Width) -> Operand {
        let vector = at.is_multiple_of(4 * width.bytes() as u64);
        Operand { at, half: u32::from(width == Width::Bf16), vector: u32::from(vector) }
    }

    /// Where the builder's program has a tensor.
    pub fn of(b: &Builder, tensor: &Tensor) -> Operand {
        Operand::new(b.address(tensor), b.width(tensor))
    }

    /// The same, to be read and written four entries at a time only where `neighbours` are in
    /// question.
    pub fn vector_if(self, neighbours: bool) -> Operand {
        Operand { vector: u32::from(self.vector != 0 && neighbours), ..self }
    }

    /// Storage of its entries.
    pub fn width(self) -> Width {
        if self.half != 0 { Width::Bf16 } else { Width::F32 }
    }

    /// Whether four entries from any multiple of 4 on may be read and written at once.
    pub fn vector(self) -> bool {
        self.vector != 0
    }

    /// The entries from number `i` on.
    pub fn skip(self, i: usize) -> Operand {
        Operand::new(self.at + (i * self.width().bytes()) as u64, self.width())
    }
}

/// No tensor.
pub(super) const NONE: Operand = Operand { at: 0, half: 0, vector: 0 };

/// A number of entries as kernels count them.
///
/// # Errors
/// From 2³¹ on: kernels divide by multiplication, which holds below.
pub(super) fn entries(count: usize) -> Result<u32> {
    u32::try_from(count).ok().filter(|n| *n < 1 << 31).ok_or_else(|| {
        Error::Program(format!(
            "a tensor of {count} entries is too large for the CUDA backend (2147483647 at most): use a smaller batch"
        ))
    })
}

/// Blocks of `per` threads for `count` threads at work.
pub(super) fn blocks(count: usize, per: usize) -> [u32; 3] {
    [count.div_ceil(per).max(1) as u32, 1, 1]
}

/// Twin of `Walk`: rows of `step` entries, `each` of them for a block of a strip.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(super) struct Walk {
    count: u32,
    step: u32,
    rows: u32,
    each: u32,
    strips: u32,
    pad: u32,
}

impl Walk {
    /// Through `count` entries with blocks of `threads`, `each` rows of 4·threads entries for a
    /// block.
    pub fn plain(count: usize, threads: usize, each: usize) -> Result<Walk> {
        let step = 4 * threads;
        let count = entries(count)?;
        Ok(Walk {
            count,
            step: step as u32,
            rows: count.div_ceil(step as u32),
            each: each as u32,
            strips: 1,
            pad: 0,
        })
    }

    /// All blocks.
    pub fn grid(&self) -> [u32; 3] {
        [self.row_blocks() * self.strips, 1, 1]
    }

    /// Blocks of one strip: so many partial sums there are of each column.
    pub fn row_blocks(&self) -> u32 {
        self.rows.div_ceil(self.each)
    }

    /// Entries of a row.
    pub fn step(&self) -> usize {
        self.step as usize
    }

    /// Whether every row begins at a multiple of 4 entries.
    pub fn aligned(&self) -> bool {
        self.step.is_multiple_of(4)
    }
}

/// A walk in which threads keep their columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Columns {
    pub walk: Walk,
    pub threads: usize,
    /// Rows of the matrix that lie beside each other in a row of the walk.
    pub beside: u32,
}

/// Multiprocessors of an H100. A constant, so that sums are cut alike, and give the same bits, on
/// every card.
pub(super) const PROCESSORS: usize = 132;

/// How a walk over columns is cut into blocks.
pub(super) struct Cut {
    /// Blocks that keep a card busy.
    pub blocks: usize,
    /// Least and most rows of the walk for a block.
    pub each: [usize; 2],
    /// Rows that a thread works on at once.
    pub at_once: usize,
}

impl Columns {
    /// Through `count` entries in `c` columns, in blocks of one of the numbers of threads in
    /// `choice`: the one that leaves the fewest threads idle, the earlier where that is much the
    /// same.
    pub fn new(count: usize, c: usize, choice: &[usize], cut: &Cut) -> Result<Columns> {
        let shape = |threads: usize| {
            // Four entries from a multiple of 4 on are the same columns only in every lcm(c, 4)-th
            // entry.
            let (per, period) = (4 * threads, c / gcd(c, 4) * 4);
            if period <= per { (per / period * period, 1) } else { (c, c.div_ceil(per)) }
        };
        let busy = |threads: usize| {
            let (step, strips) = shape(threads);
            step as f64 / (strips * 4 * threads) as f64
        };
        let mut threads = choice[0];
        for other in choice {
            if busy(*other) > busy(threads) + 0.02 {
                threads = *other;
            }
        }
        let (step, strips) = shape(threads);
        let rows = entries(count)?.div_ceil(step as u32);
        let each = (rows as usize).div_ceil((cut.blocks / strips).max(1)).clamp(cut.each[0], cut.each[1]);
        let each = each.next_multiple_of(cut.at_once) as u32;
        let walk =
            Walk { count: count as u32, step: entries(step)?, rows, each, strips: strips as u32, pad: 0 };
        Ok(Columns { walk, threads, beside: (step / c) as u32 })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_keep_their_columns_and_few_are_idle() {
        let cut = Cut { blocks: 528, each: [4, 64], at_once: 2 };
        for c in [1, 3, 10, 16, 17, 32, 64, 100, 160, 257, 320, 640, 1000, 4096, 16_385] {
            for rows in [1, 7, 100, 6400] {
                let columns =
                    Columns::new(rows * c, c, &[128, 160, 192, 224, 256, 96, 64, 32], &cut).unwrap();
                let Columns { walk, threads, beside } = columns;
                assert!((walk.step as usize).is_multiple_of(c), "{c}: {walk:?}");
                assert_eq!(walk.step as usize, beside as usize * c, "{c}: {walk:?}");
                assert!(walk.rows * walk.step >= walk.count && walk.row_blocks() * walk.each >= walk.rows);
                assert!((walk.strips as usize * 4 * threads) >= walk.step as usize);
                assert!(
                    walk.strips == 1 || beside == 1,
                    "{c}: strips of a matrix whose rows lie beside each other"
                );
                let busy = f64::from(walk.step) / (walk.strips as usize * 4 * threads) as f64;
                assert!(busy > 0.65, "{c} columns: {threads} threads, {busy} of them busy");
            }
        }
    }
}
