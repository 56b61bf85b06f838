//! `metatape bench` from outside: what it counts without running, what it times, and how it goes
//! through several configurations.

use std::fs;

use assert_cmd::Command;
use metatape::backend::cuda::driver::{Address, Command as Told, Driver, Function, Graph, Source};
use metatape::backend::cuda::{Cuda, Precision};
use metatape::meta::{Batch, MetaStep, StepConfig};
use metatape::nn::{self, WeightNet, WeightNetInit};
use metatape::program::{Options, Session, Values};
use metatape::tape::{GatherSpec, Kind, Scalar, Tape};
use metatape::{Error, Result};
use serde_json::Value;
use std::sync::{Arc, Mutex};

fn bench(args: &str) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.arg("bench").args(args.split_whitespace());
    command
}

/// Standard output of a command that succeeds, as JSON.
fn json(args: &str) -> Value {
    let output = bench(&format!("{args} --json")).assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Standard error of a command that fails with this code and prints nothing.
fn fails(args: &str, code: i32) -> String {
    let output = bench(args).assert().code(code).get_output().clone();
    assert!(output.stdout.is_empty(), "{args}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{args}: {message}");
    message
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {value}"))
}

/// Sum of a field over the kernels whose name begins so.
fn of_kernels(step: &Value, begin: &str, field: &str) -> f64 {
    let parts = step["by_kernel"].as_array().unwrap();
    let named = parts.iter().filter(|p| p["kernel"].as_str().unwrap().starts_with(begin));
    named.map(|p| p[field].as_f64().unwrap()).sum()
}

/// Every product of the MLP's steps, counted by hand. n images; layers 784–256–10; weight net
/// 1–100–1.
#[test]
fn the_plan_counts_the_operations_of_an_mlp() {
    let n = 100.0;
    let (first, second, net) = (2.0 * n * 784.0 * 256.0, 2.0 * n * 256.0 * 10.0, 2.0 * n * 100.0);
    // Forward, weight gradients; data gradient of the second layer.
    let plain = 2.0 * (first + second) + second;
    // The first layer at w, at ŵ (its part at w) and its real weight gradient; x_meta·xᵀ, which
    // stands for the virtual and the meta gradient, and its product with either δ; the second
    // layer's forward products (2), signals (1), meta signal (1), gradients (3) and its part of u
    // (1); V twice, and its gradient.
    let gram = 2.0 * n * n * 784.0 + 2.0 * (2.0 * n * n * 256.0);
    let meta = 3.0 * first + gram + 8.0 * second + (2.0 + 2.0 + 3.0) * net;
    for device in ["cpu", "cuda"] {
        let plan = json(&format!("--plan --device {device}"));
        assert_eq!(plan["device"], device);
        assert_eq!(number(&plan, "/plain/flops"), plain);
        assert_eq!(number(&plan, "/meta/flops"), meta);
    }
}

/// A step's convolutions are 10 forward passes, less what nobody wants of the first layer: its data
/// gradient, three times, and its product with the tangent of the images.
#[test]
fn the_plan_counts_the_convolutions_of_a_resnet() {
    // Products of one image: 32×32 pixels, 3 to 16 channels; stages of ten convolutions, the first
    // of a stage from half the channels.
    let first = 32 * 32 * 9 * 3 * 16;
    let stage = |extent: usize, c: usize, from: usize| extent * extent * 9 * (from + 9 * c) * c;
    let forward = first + stage(32, 16, 16) + stage(16, 32, 16) + stage(8, 64, 32);
    let flops = |products: usize| (2 * 100 * products) as f64;
    for precision in ["f32", "bf16"] {
        let plan = json(&format!("--plan --model resnet32 --device cuda --precision {precision}"));
        let conv = |step: &str| of_kernels(&plan[step], "conv", "flops");
        assert_eq!(conv("meta"), flops(10 * forward - 4 * first), "{precision}");
        assert_eq!(conv("plain"), flops(3 * forward - first), "{precision}");
        let products = number(&plan, "/meta/flops") - conv("meta");
        assert!(products > 0.0 && products < 1e-4 * conv("meta"), "the rest is small products: {products}");
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Counter {
    memory: usize,
    /// Of each launch of ours, the blocks; of all else, nothing.
    told: Vec<Option<u64>>,
}

impl Driver for Counter {
    fn describe(&self) -> String {
        "counter".into()
    }
    fn wgmma(&self) -> bool {
        true
    }
    fn resident(&self) -> usize {
        132
    }
    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.memory += bytes.next_multiple_of(256) + 256;
        Ok((self.memory - bytes.next_multiple_of(256)) as Address)
    }
    fn upload(&mut self, _to: Address, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
    fn download(&self, _from: Address, _bytes: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn function(&mut self, _source: &Source, _name: &str) -> Result<Function> {
        Ok(Function(0))
    }
    fn prepare(&mut self, _sources: &[&Source]) -> Result<()> {
        Ok(())
    }
    fn run(&mut self, command: &Told) -> Result<()> {
        self.told.push(match command {
            Told::Launch { grid: [x, y, z], .. } => Some(u64::from(*x) * u64::from(*y) * u64::from(*z)),
            _ => None,
        });
        Ok(())
    }
    fn allocated(&self) -> usize {
        self.memory
    }
    fn time(&mut self, _commands: &[Told], _times: usize) -> Result<f64> {
        Ok(0.0)
    }
    fn capture(&mut self, _commands: &[Told]) -> Result<Graph> {
        Err(Error::Device("not wanted here".into()))
    }
    fn replay(&mut self, _graph: Graph) -> Result<()> {
        Ok(())
    }
    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
    fn release(&mut self, _memory: &[Address], _graphs: &[Graph]) -> Result<()> {
        Ok(())
    }
}

/// A driver that sees a run go by counts the same.
#[test]
fn the_plan_counts_the_launches_of_a_run() {
    let net = nn::named("resnet32", 10).unwrap();
    let weight_net = WeightNet { hidden: 100, init: WeightNetInit::Kinks, slope: 1.0, groups: Vec::new() };
    let config = StepConfig::default();
    let spec = GatherSpec { mean: vec![Scalar(0.5); 3], std: vec![Scalar(0.29); 3], pad: 4 };
    let data = Batch::Picked { count: 1000, image: [32, 32, 3], spec };
    let mut tape = Tape::new();
    MetaStep { net: net.as_ref(), weight_net: &weight_net, config: &config, data: &data, batch: [100; 2] }
        .record(&mut tape, false)
        .unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let counter = Arc::new(Mutex::new(Counter::default()));
        let mut session = Session::new(Box::new(Cuda::new(Box::new(counter.clone()), precision, false)));
        let program = session.compile(&tape, Options::default()).unwrap();
        for input in program.inputs().to_vec() {
            let count = input.shape.count();
            let (floats, ints) = (vec![0.0; count], vec![0; count]);
            let values = if input.kind == Kind::Int { Values::Int(&ints) } else { Values::Float(&floats) };
            session.feed(&program, &input.name, values).unwrap();
        }
        counter.lock().unwrap().told.clear();
        session.run(&program).unwrap();
        let told = counter.lock().unwrap().told.clone();
        let name = precision.name();
        let plan = json(&format!("--plan --model resnet32 --device cuda --precision {name}"));
        let count = |keep: &dyn Fn(Option<u64>) -> bool| told.iter().filter(|t| keep(**t)).count() as f64;
        assert_eq!(number(&plan, "/meta/launches"), told.len() as f64, "{name}");
        assert_eq!(of_kernels(&plan["meta"], "", "launches"), told.len() as f64, "{name}");
        assert_eq!(number(&plan, "/meta/kernels"), count(&|t| t.is_some()), "{name}");
        let few = |most| count(&|t: Option<u64>| t.is_some_and(|blocks| blocks <= most));
        assert_eq!(number(&plan, "/meta/launches_of_at_most_32_blocks"), few(32), "{name}");
        assert_eq!(number(&plan, "/meta/launches_of_one_block"), few(1), "{name}");
        assert_eq!(number(&plan, "/meta/instructions"), program.kernels as f64, "{name}");
    }
}

#[test]
fn the_floor_is_the_largest_of_bytes_operations_and_launches() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rates.toml");
    let rates = |bandwidth: f64, tflop_s: f64| {
        let tensor = "tf32_tflop_s = 1\nbf16_tflop_s = 1";
        let text = format!("name = \"X\"\nbandwidth_tb_s = {bandwidth}\nf32_tflop_s = {tflop_s}\n{tensor}\n");
        fs::write(&file, text).unwrap();
        json(&format!("--plan --device cuda --model lenet --rates {}", file.display()))
    };
    for (bandwidth, tflop_s, binds) in
        [(1e3, 1e3, "launches"), (1e-3, 1e3, "bytes"), (1e3, 1e-3, "operations")]
    {
        let plan = rates(bandwidth, tflop_s);
        let meta = &plan["meta"];
        let bytes = number(meta, "/bytes_read") + number(meta, "/bytes_written");
        let each = [
            ("bytes_ms", bytes / (bandwidth * 1e9)),
            ("operations_ms", number(meta, "/flops") / (tflop_s * 1e9)),
            ("launches_ms", number(meta, "/launches") * 1.3e-3),
        ];
        for (field, ms) in each {
            let got = number(meta, &format!("/floor/{field}"));
            assert!((got / ms - 1.0).abs() < 1e-12, "{field}: {got} is not {ms}");
        }
        let most = each.iter().map(|e| e.1).fold(0.0, f64::max);
        assert!((number(meta, "/floor_ms") / most - 1.0).abs() < 1e-12, "{meta}");
        assert_eq!((&meta["floor"]["binds"], &meta["floor"]["rates"]["name"]), (&binds.into(), &"X".into()));
    }
    // A card of the data sheets, and half as wide activations on it.
    let of = |precision: &str| json(&format!("--plan --model lenet --device cuda --precision {precision}"));
    let (single, half) = (of("f32"), of("bf16"));
    assert_eq!(number(&single, "/meta/floor/rates/tb_per_s"), 3.35);
    let ratio = number(&half, "/meta/bytes_written") / number(&single, "/meta/bytes_written");
    assert!((0.5..0.7).contains(&ratio), "{ratio}");
    // The CPU's are measured.
    let cpu = json("--plan --model lenet --device cpu --threads 1");
    for step in ["plain", "meta"] {
        assert_eq!(cpu[step]["floor"]["launches_ms"], Value::Null);
        assert!(number(&cpu[step], "/floor_ms") > 0.0 && cpu[step].get("launches").is_none());
    }
}

#[test]
fn wrong_rates_name_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rates.toml");
    fs::write(&file, "name = \"X\"\nbandwidth_tb_s = 2\nf32_tflop_s = 1\ntf32_tflop_s = 1\n").unwrap();
    let message = fails(&format!("--plan --device cuda --rates {}", file.display()), 2);
    for part in ["--rates", "rates.toml", "`bf16_tflop_s` is missing"] {
        assert!(message.contains(part), "{message}");
    }
    let message = fails("--plan --device cuda --rates h300", 2);
    assert!(message.contains("`h300`") && message.contains("h100, h200, a100"), "{message}");
    assert!(fails("--plan --device cpu --rates h100", 2).contains("--rates"));
    assert!(fails("--device cpu --rates h100", 2).contains("--rates"));
    assert!(fails("--plan --device cuda --precision f64", 2).contains("--precision f64"));
    assert!(fails("--plan --device cpu --precision bf16", 2).contains("--precision bf16"));
    assert!(fails("--plan --steps 3", 2).contains("--plan"));
    assert!(fails("--models mlp,lenet --device cpu --json", 2).contains("--json-lines"));
}

#[test]
fn both_steps_are_timed() {
    let result = json("--model mlp --batch 10 --steps 7 --threads 1 --device cpu --profile");
    for kind in ["plain_ms", "meta_ms"] {
        let [min, median, max] = ["min", "median", "max"].map(|field| result[kind][field].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{result}");
    }
    for field in ["ratio", "peak_memory_bytes", "operations", "plain_operations", "gflop", "plain_gflop"] {
        assert!(result[field].as_f64().unwrap() > 0.0, "{field} in {result}");
    }
    assert_eq!(
        (&result["model"], &result["batch"], &result["steps"]),
        (&"mlp".into(), &10.into(), &7.into())
    );
    assert_eq!(
        (&result["route"], &result["threads"], &result["precision"]),
        (&"layerwise".into(), &1.into(), &"f32".into())
    );
    assert!(result["device"].as_str().unwrap().starts_with("cpu"));
    floors_are_reached(&result);
    let profile = result["profile"].as_array().unwrap();
    let launches: u64 = profile.iter().map(|row| row["launches"].as_u64().unwrap()).sum();
    assert_eq!(launches, result["operations"].as_u64().unwrap());
    assert!(profile.iter().all(|row| row["ms"].as_f64().unwrap() >= 0.0 && row["kernel"].is_string()));
    assert!(profile.is_sorted_by(|a, b| a["ms"].as_f64() >= b["ms"].as_f64()));
    // 3 products a linear layer's step, less the first layer's data gradient, of 10 images: forward
    // and weight gradients of 784×256 and 256×10, data gradient of the latter.
    let products = 2.0 * (784.0 * 256.0 + 256.0 * 10.0) + 256.0 * 10.0;
    assert_eq!((result["plain_gflop"].as_f64().unwrap() * 1e9).round(), 2.0 * 10.0 * products);
}

fn floors_are_reached(result: &Value) {
    for prefix in ["", "plain_"] {
        let share = number(result, &format!("/{prefix}of_floor"));
        assert!(share > 0.0 && share <= 1.05, "{prefix}of_floor is {share} in {result}");
        let floor = number(result, &format!("/{prefix}floor_ms"));
        let timed = if prefix.is_empty() { "meta_ms" } else { "plain_ms" };
        assert!((floor / number(result, &format!("/{timed}/median")) / share - 1.0).abs() < 1e-12);
        // What is done, of what direct sums would be: less where Winograd's algorithm is at work.
        let [ms, rate] = ["operations_ms", "rates/tflop_per_s"]
            .map(|field| number(result, &format!("/{prefix}floor/{field}")));
        let done = ms * rate / number(result, &format!("/{prefix}gflop"));
        match (result["model"].as_str(), result["precision"].as_str()) {
            (Some("lenet"), Some("f32")) => assert!(done > 0.3 && done < 0.4, "{prefix}{done} in {result}"),
            _ => assert!((done - 1.0).abs() < 1e-12, "{prefix}{done} in {result}"),
        }
    }
}

/// One process, a line for each as it comes, in order; what cannot be timed is a line, too.
#[test]
fn several_configurations_are_lines_and_a_failure_is_one_of_them() {
    let common = "--batch 20 --steps 3 --threads 1 --device cpu --graphs both --json-lines";
    let lines = |args: &str, code: i32| -> Vec<Value> {
        let output = bench(&format!("{args} {common}")).assert().code(code).get_output().clone();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines("--models mlp,lenet --precisions f32,f64", 0);
    let names: Vec<_> =
        all.iter().map(|l| (l["model"].as_str().unwrap(), l["precision"].as_str().unwrap())).collect();
    assert_eq!(names, [("mlp", "f32"), ("mlp", "f64"), ("lenet", "f32"), ("lenet", "f64")]);
    all.iter().for_each(floors_are_reached);
    // Of the process; later ones find what the first has left.
    assert!(number(&all[0], "/peak_memory_bytes") > 0.0);
    assert!(all[1..].iter().all(|line| line["peak_memory_bytes"].is_null()), "{all:?}");
    let mixed = lines("--models mlp --precisions bf16,f32", 1);
    assert_eq!((&mixed[0]["model"], &mixed[0]["precision"]), (&"mlp".into(), &"bf16".into()));
    assert!(mixed[0]["error"].as_str().unwrap().contains("--precision bf16 is for GPUs alone"), "{mixed:?}");
    assert!(mixed[1]["error"].is_null() && number(&mixed[1], "/meta_ms/median") > 0.0, "{mixed:?}");
    assert_eq!(mixed.len(), 2);
}

/// The rate is in proportion to the batch, as in training, and can be given.
#[test]
fn the_rate_is_that_of_the_batch_or_given() {
    let timed = json("--batch 1 --steps 500 --threads 1");
    assert!(number(&timed, "/meta_ms/median") > 0.0);
    let message = fails("--batch 10 --steps 20 --lr 1e9", 1);
    assert!(message.contains("learning rate 1000000000"), "{message}");
    assert!(message.contains("smaller --lr"), "{message}");
}

/// A route that records a walk for every sample says so before it is silent for minutes.
#[test]
fn a_walk_a_sample_has_its_limit() {
    let message = fails("--route per-sample --batch 100000", 2);
    assert!(
        ["--route per-sample", "100000", "at most 1000"].iter().all(|part| message.contains(part)),
        "{message}"
    );
}
