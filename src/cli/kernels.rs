//! `metatape kernels`: the GPU's kernels, compiled ahead.

use std::path::PathBuf;

use clap::Args;
use metatape::Result;
use metatape::file::read_text;
use metatape::meta::Route;
use metatape::tape::Shape;
use metatape::train::values::{self, model, positive};
use serde_json::json;

use super::bench::{plans, prepared};
use super::cuda::{Precision, Source, compile_kernels, written};
use super::report;
use super::values::{architecture, sample};

/// `metatape kernels`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A GPU's kernels are compiled by NVRTC at first use and kept in a cache: METATAPE_CACHE_DIR, or ~/.cache/metatape. \
                  This command fills such a folder where NVRTC is and no GPU need be: for a cluster whose jobs should not each \
                  compile, and for machines with a GPU but without NVRTC. `metatape info` shows a card's compute capability; 9.0 is \
                  sm_90. The folder serves every metatape with the same kernels.

The kernels of a network's entrywise work are written for it: --models prepares those of `metatape bench`, and other programs \
compile theirs when they start.

Example:
  metatape kernels --arch sm_80 --arch sm_90 --out kernels --models resnet32
  METATAPE_CACHE_DIR=kernels metatape bench --device cuda"
)]
pub struct KernelsArgs {
    /// Cards to compile for, by compute capability (sm_80 and later); may be given several times
    #[arg(long = "arch", value_name = "sm_NN", required = true, value_delimiter = ',', value_parser = architecture)]
    pub architectures: Vec<i32>,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classifiers whose steps' kernels are compiled, too, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = model)]
    pub models: Vec<String>,
    /// What the samples are like: an image's HxWxC, or the number of features [default: 32x32x3;
    /// 28x28x1 for mlp and lenet]
    #[arg(long, value_name = "HxWxC|D", value_parser = sample)]
    pub input: Option<Shape>,
    /// Samples of their batches
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub batch: usize,
    /// Further files of CUDA C++ that use the headers of kernels/
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// What is compiled besides the files of `kernels/`.
fn others(args: &KernelsArgs) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for model in &args.models {
        let data =
            prepared(model, args.input.as_ref(), args.batch, Route::Layerwise, values::Precision::F32)?;
        for plan in plans(&data)? {
            for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                sources.extend(written(&plan, precision)?);
            }
        }
    }
    for file in &args.files {
        let text = read_text(file, "read")?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sources.push(Source { name: name.into(), text: text.into() });
    }
    sources.sort();
    sources.dedup();
    Ok(sources)
}

/// Compiles, writes, and tells what was written.
pub fn run(args: &KernelsArgs) -> Result<()> {
    let (compiled, version) = compile_kernels(&args.out, &args.architectures, &others(args)?)?;
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
        rows.push(row([&c.file, &format!("sm_{}", c.capability), &c.bytes.to_string()]));
    }
    rows.push(row(["all", "", &total.to_string()]));
    let table = report::table(&rows);
    report::print(format_args!(
        "{table}\n\nby NVRTC {version}; METATAPE_CACHE_DIR={} uses them",
        args.out.display()
    ))
}
