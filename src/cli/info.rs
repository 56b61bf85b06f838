//! `metatape info`: what this machine offers, or what a network's file says.

use metatape::Result;
use metatape::backend::cpu::isa::Isa;
use metatape::models::ModelFile;
use metatape::nn::Summary;
use serde_json::json;

use super::args::InfoArgs;
use super::cuda::describe_gpus;
use super::device::available_threads;
use super::report;

/// Prints version, CPU, threads and GPUs, or what is asked of a network.
pub fn run(args: &InfoArgs) -> Result<()> {
    if let Some(model) = &args.model {
        return network(args, ModelFile::open(model)?);
    }
    let (model, features) = (cpu_model(), cpu_features());
    let (kernels, threads, gpus) = (kernels(), available_threads(), describe_gpus());
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        return report::print_json(&json!({
            "version": version,
            "cpu": { "model": model, "features": features, "kernels": kernels },
            "threads": threads,
            "gpus": gpus,
        }));
    }
    let listed = |items: &[String]| if items.is_empty() { "none found".to_owned() } else { items.join("; ") };
    let features: Vec<String> = features.iter().map(ToString::to_string).collect();
    report::print(format_args!(
        "metatape      {version}\nCPU           {model}\nCPU features  {}\nkernels       {kernels}\nthreads       {threads}\n\
         GPUs          {}",
        if features.is_empty() { "none that the kernels ask for".to_owned() } else { features.join(" ") },
        listed(&gpus),
    ))
}

/// Prints a network's file, or its parameters on an input.
fn network(args: &InfoArgs, file: ModelFile) -> Result<()> {
    let (name, text) = (file.name.clone(), file.text.clone());
    let Some(input) = &args.input else {
        return match args.json {
            true => report::print_json(&json!({ "model": name, "text": text })),
            false => report::print(text.trim_end()),
        };
    };
    let summary = Summary::of(file.network(args.classes).as_ref(), input)?;
    if args.json {
        let params = summary.params.iter().map(|(name, shape)| json!({ "name": name, "shape": shape[..] }));
        let params: Vec<_> = params.collect();
        let count = summary.count();
        return report::print_json(
            &json!({ "model": name, "text": text, "parameters": params, "count": count }),
        );
    }
    let mut rows = vec![["parameter".to_owned(), "shape".into(), "numbers".into()].to_vec()];
    let row = |name: &str, shape: String, count: usize| vec![name.to_owned(), shape, count.to_string()];
    rows.extend(summary.params.iter().map(|(name, shape)| row(name, shape.to_string(), shape.count())));
    rows.push(row("all", String::new(), summary.count()));
    report::print(report::table(&rows))
}

/// The processor's name as the system gives it, or its architecture.
fn cpu_model() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Of the features that the kernels ask for, those that are here.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let asked = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512dq", is_x86_feature_detected!("avx512dq")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ];
        asked.into_iter().filter(|(_, here)| *here).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// The instruction set that the kernels run with.
fn kernels() -> &'static str {
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => "AVX2 and FMA",
        Isa::Portable => "portable",
    }
}
