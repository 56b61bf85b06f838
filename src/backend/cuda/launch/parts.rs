//! Sums that blocks share: each leaves a part of them in memory, and the last ones to be done add
//! the parts (`add_parts` in `kernels/common.cuh`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::driver::Address;
use super::walk::entries;
use crate::error::Result;

/// Fewest parts that are added in two steps.
const TWO_STEPS: usize = 12;

/// Twin of `Parts`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Parts {
    tickets: Address,
    count: u32,
    side: u32,
}

impl Parts {
    /// Of each of so many sums, so many parts, which so many blocks make.
    ///
    /// # Errors
    /// If there are more than kernels can count, or no memory is left.
    pub fn new(b: &mut Builder, sums: usize, count: usize, blocks: usize) -> Result<Parts> {
        // About as many in the first step as in the second.
        let side = if count < TWO_STEPS { count.max(1) } else { count.isqrt() };
        let tickets = if blocks > 1 { b.tickets(sums * (1 + count.div_ceil(side)))? } else { 0 };
        Ok(Parts { tickets, count: entries(count)?, side: side as u32 })
    }
}
