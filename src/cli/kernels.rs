//! `metatape kernels`: the GPU's kernels, compiled ahead.

use std::path::PathBuf;

use clap::Args;
use metatape::Result;
use serde_json::json;

use super::cuda::compile_kernels;
use super::report;
use super::values::architecture;

/// `metatape kernels`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A GPU's kernels are compiled by NVRTC at first use and kept in a cache: METATAPE_CACHE_DIR, or ~/.cache/metatape. \
                  This command fills such a folder where NVRTC is and no GPU need be: for a cluster whose jobs should not each \
                  compile, and for machines with a GPU but without NVRTC. `metatape info` shows a card's compute capability; 9.0 is \
                  sm_90. The folder serves every metatape with the same kernels.

Example:
  metatape kernels --arch sm_80 --arch sm_90 --out kernels
  METATAPE_CACHE_DIR=kernels metatape bench --device cuda"
)]
pub struct KernelsArgs {
    /// Cards to compile for, by compute capability (sm_80 and later); may be given several times
    #[arg(long = "arch", value_name = "sm_NN", required = true, value_delimiter = ',', value_parser = architecture)]
    pub architectures: Vec<i32>,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Compiles, writes, and tells what was written.
pub fn run(args: &KernelsArgs) -> Result<()> {
    let (compiled, version) = compile_kernels(&args.out, &args.architectures)?;
    let total: usize = compiled.iter().map(|c| c.bytes).sum();
    if args.json {
        let files =
            compiled.iter().map(|c| json!({ "file": c.file, "arch": c.capability, "bytes": c.bytes }));
        return report::print_json(&json!({
            "nvrtc": version,
            "out": args.out,
            "bytes": total,
            "kernels": files.collect::<Vec<_>>(),
        }));
    }
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["file", "arch", "bytes"])];
    for c in &compiled {
        rows.push(row([c.file, &format!("sm_{}", c.capability), &c.bytes.to_string()]));
    }
    rows.push(row(["all", "", &total.to_string()]));
    let table = report::table(&rows);
    report::print(format_args!(
        "{table}\n\nby NVRTC {version}; METATAPE_CACHE_DIR={} uses them",
        args.out.display()
    ))
}
