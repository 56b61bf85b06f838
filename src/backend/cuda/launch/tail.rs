//! The last stage of sums that several blocks share, and the small groups that come next in the
//! same launch (`kernels/totals.cuh`).

use super::super::builder::{Builder, Prepared};
use super::super::driver::Source;
use super::entrywise;
use super::walk::blocks;
use crate::error::Result;
use crate::program::Instr;

/// Threads of a block.
pub(super) const TOTALS_THREADS: u32 = 512;

/// The last stage of sums: a launch that is still to be made.
pub struct Finish {
    /// The kernel that does this and nothing else.
    pub(super) kernel: (&'static Source, &'static str),
    /// In `kernels/totals.cuh`, the parameter struct and the function.
    pub(super) function: (&'static str, &'static str),
    /// The parameter struct's bytes.
    pub(super) params: Vec<u8>,
    /// Columns that are summed, 32 for a block.
    pub(super) columns: usize,
}

impl Finish {
    fn grid(&self) -> [u32; 3] {
        blocks(self.columns, 32)
    }

    /// Appends it alone.
    pub fn launch(self, b: &mut Builder) -> Result<()> {
        let (source, name) = self.kernel;
        let function = b.driver.function(source, name)?;
        b.push(function, self.grid(), TOTALS_THREADS, 0, self.params);
        Ok(())
    }

    /// The launch of it and of small groups after it: of as many of these instructions as
    /// [`entrywise::followers`] says.
    pub fn with(&self, b: &Builder, followers: &[Instr]) -> Result<Option<Prepared>> {
        let prepared = entrywise::after(b, followers, self.function, &self.params)?;
        let launch = |(source, name, params)| Prepared {
            source,
            name,
            grid: self.grid(),
            block: TOTALS_THREADS,
            shared: 0,
            params,
        };
        Ok(prepared.map(launch))
    }
}
