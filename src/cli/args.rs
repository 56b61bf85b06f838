//! All flags, their defaults and their help.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, Parser, Subcommand};
use metatape::Result;
use metatape::data::{Dataset, DatasetKind, Noise, Split, SplitConfig, default_meta_size, load, split};
use metatape::meta::{Preset, Route, Sgd, StepConfig, VirtualStep, Weights, probe};
use metatape::nn::{WeightNet, WeightNetInit};
use metatape::train::Method;
use metatape::train::ablation::Variant;

use super::bench::BenchArgs;
use super::compare::CompareArgs;
use super::kernels::KernelsArgs;
use super::values::{DeviceChoice, Precision, factor, model, positive, rate, seed, share};

/// The choices of `--model`, and of `--route`.
pub const MODELS: &str = "mlp|lenet|resnet32|wrn28-10";
pub const ROUTES: &str = "jvp|reverse|finite-difference|per-sample|implicit-cg:N|neumann:N";

/// Meta-Weight-Net on a hand-written autodiff tape: learns, from a small clean set, which losses to
/// trust.
#[derive(Parser, Debug)]
#[command(
    name = "metatape",
    bin_name = "metatape",
    version,
    propagate_version = true,
    max_term_width = 110,
    arg_required_else_help = true,
    after_help = "Examples:
  metatape train                                    built-in images with 60% noise, and the baseline beside
  metatape train --model lenet --noise flip2:0.4    another network, another noise
  metatape compare --methods all --out runs/all     every scheme of the field side by side
  metatape hypergrad --model lenet --precision f64  every way to compute the hypergradient, compared
  metatape bench --model resnet32                   milliseconds of a plain step and of a meta step
  metatape info                                     what this machine offers"
)]
pub struct Metatape {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train on biased data, with weights learned from a small clean meta set
    Train(TrainArgs),
    /// Compare reweighting schemes on the same data over several seeds
    Compare(CompareArgs),
    /// Compute one meta step's hypergradient by every route; compare and dump
    Hypergrad(HypergradArgs),
    /// Ask by experiment what the method needs: its meta set, its three steps, its exact
    /// hypergradient
    Ablate(AblateArgs),
    /// Time a plain training step and a whole meta step
    Bench(BenchArgs),
    /// Compile the GPU's kernels ahead, for machines without NVRTC
    Kernels(KernelsArgs),
    /// Show version, CPU features, threads and GPUs
    Info(InfoArgs),
}

/// Which data, and how they are spoilt.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// fashion-mnist-mini (built in), mnist, fashion-mnist, cifar10, cifar100, or folder
    /// (train/<class>/*.jpg|png, test/...)
    #[arg(long, value_name = "NAME", default_value_t = DatasetKind::FashionMnistMini)]
    pub dataset: DatasetKind,
    /// Folder with the data set's files; all but the built-in one need it
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Label noise of the training set: none, or with a probability P uniform:P (a label drawn anew
    /// from all classes), flip:P (one wrong class for each), flip2:P (two) [default: uniform:0.6,
    /// or none beside --imbalance]
    #[arg(long, value_name = "NOISE", allow_negative_numbers = true)]
    pub noise: Option<Noise>,
    /// Long tail: the largest class has IF times the images of the smallest
    #[arg(long, value_name = "IF", value_parser = factor, allow_negative_numbers = true)]
    pub imbalance: Option<f64>,
    /// Clean images set apart for the meta set, the same number of each class [default: 1000; 10 a
    /// class for a long tail without noise]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub meta_size: Option<usize>,
}

impl DataArgs {
    /// The noise, with its default.
    pub fn noise(&self) -> Noise {
        self.noise.unwrap_or(if self.imbalance.is_some() { Noise::None } else { Noise::Uniform(0.6) })
    }

    /// Reads the data set and splits its training images.
    pub fn load(&self, seed: u64) -> Result<(Dataset, Split)> {
        let dataset = load(self.dataset, self.data_dir.as_deref())?;
        let default = || default_meta_size(dataset.classes(), self.noise(), self.imbalance);
        let meta_size = self.meta_size.unwrap_or_else(default);
        let config = SplitConfig { noise: self.noise(), imbalance: self.imbalance, meta_size, seed };
        let split = split(&dataset, &config)?;
        Ok((dataset, split))
    }
}

/// What a meta step is made of, but for its route.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Meta step")]
pub struct StepArgs {
    /// Weights of a batch: normalised (V over the sum of V) or mean (V/n)
    #[arg(long, value_name = "mean|normalised", default_value_t = Weights::Normalised)]
    pub weights: Weights,
    /// Differentiate the loss that the weight net reads, too
    #[arg(long)]
    pub undetached: bool,
    /// The virtual step's rule: plain SGD, or momentum and weight decay as in the real step
    #[arg(long = "virtual", value_name = "plain|momentum", default_value_t = VirtualStep::Plain)]
    pub virtual_step: VirtualStep,
    /// Virtual steps, each on a batch of its own, through which the hypergradient goes; 1 as
    /// published
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub unroll: usize,
    /// The weight net's optimiser: adam (1e-3, L2 1e-4), sgd-noise (1e-3, Nesterov 0.9, weight
    /// decay 5e-4) or sgd-imbalance (1e-5, the same)
    #[arg(long, value_name = "PRESET", default_value_t = Preset::Adam)]
    pub weight_net_preset: Preset,
    /// The weight net's learning rate [default: its optimiser's; 2e-3 for adam with kinks]
    #[arg(long, value_name = "LR", value_parser = rate, allow_negative_numbers = true)]
    pub weight_net_lr: Option<f64>,
    /// Where the weight net begins: kinks (rising and falling units spread over the losses, V = 0.5
    /// everywhere), or faithful (PyTorch's default, as published)
    #[arg(long, value_name = "INIT", default_value_t = WeightNetInit::Kinks)]
    pub weight_net_init: WeightNetInit,
    /// Momentum of the classifier's SGD
    #[arg(long, value_name = "MU", default_value_t = 0.9, value_parser = share, allow_negative_numbers = true)]
    pub momentum: f64,
    /// Nesterov's form of that momentum
    #[arg(long)]
    pub nesterov: bool,
    /// L2 coefficient of the classifier, batch norm's scales and biases included
    #[arg(long, value_name = "L2", default_value_t = 5e-4, value_parser = share, allow_negative_numbers = true)]
    pub weight_decay: f64,
    /// The classifier's learning rate
    #[arg(long, value_name = "LR", default_value_t = 0.05, value_parser = rate, allow_negative_numbers = true)]
    pub lr: f64,
}

impl StepArgs {
    /// The step's options.
    pub fn config(&self, route: Route, precision: Precision) -> StepConfig {
        StepConfig {
            weights: self.weights,
            undetached: self.undetached,
            virtual_step: self.virtual_step,
            unroll: self.unroll,
            route,
            classifier: self.classifier(),
            weight_net: self.weight_net_preset.optimiser().0,
            probe: probe(precision == Precision::F64),
        }
    }

    /// The classifier's rule.
    pub fn classifier(&self) -> Sgd {
        Sgd { momentum: self.momentum, nesterov: self.nesterov, weight_decay: self.weight_decay }
    }

    /// The weight net 1–100–1.
    pub fn weight_net(&self) -> WeightNet {
        WeightNet {
            hidden: 100,
            init: self.weight_net_init,
            slope: self.weight_net_preset.slope(),
            groups: Vec::new(),
        }
    }
}

/// Where and how to compute.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Machine")]
pub struct DeviceArgs {
    /// CPU threads; results do not depend on them [default: all]
    #[arg(long, value_name = "T", value_parser = positive, allow_negative_numbers = true)]
    pub threads: Option<usize>,
    /// Floating-point numbers: f32 anywhere; f64 on the CPU; on a GPU also tf32 (products of
    /// factors rounded to 10 bits) and bf16 (activations stored in 16 bits, too)
    #[arg(long, value_name = "f32|f64|tf32|bf16", default_value_t = Precision::F32)]
    pub precision: Precision,
    /// cpu, cuda, cuda:N (GPU number N, from 0), or auto: the first GPU that works with the
    /// precision, or else the CPU
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
}

/// What is trained on what, and how long: shared by all commands that train.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Data set, noise, long tail, meta set.
    #[command(flatten)]
    pub data: DataArgs,
    /// The classifier
    #[arg(long, value_name = MODELS, default_value = "mlp", value_parser = model)]
    pub model: String,
    /// Options of the meta step, and the learning rate.
    #[command(flatten)]
    pub step: StepArgs,
    /// How the hypergradient is computed
    #[arg(long, value_name = ROUTES, default_value_t = Route::Jvp, help_heading = "Meta step")]
    pub route: Route,
    /// The weight net takes a step once in K steps of the classifier
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = positive, allow_negative_numbers = true, help_heading = "Meta step")]
    pub theta_every: usize,
    /// Passes over the training set
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive, allow_negative_numbers = true, help_heading = "Schedule")]
    pub epochs: usize,
    /// Samples of a batch, and of a meta batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, allow_negative_numbers = true, help_heading = "Schedule")]
    pub batch: usize,
    /// Numbers of epochs, ascending and separated by commas, after which the learning rate is
    /// divided by 10 [default: 66% and 85% of --epochs]
    #[arg(long, value_name = "EPOCHS", value_delimiter = ',', value_parser = positive, allow_negative_numbers = true, help_heading = "Schedule")]
    pub milestones: Option<Vec<usize>>,
    /// Threads, precision, device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl RunArgs {
    /// Epochs after which the learning rate is divided by 10: as given, or ⌊66%⌋ and ⌊85%⌋ of all,
    /// where that is not before the first.
    pub fn milestones(&self) -> Vec<usize> {
        let default =
            || [66, 85].map(|percent| self.epochs * percent / 100).into_iter().filter(|m| *m > 0).collect();
        self.milestones.clone().unwrap_or_else(default)
    }
}

/// The names of the fields of a subcommand whose flags stand on the command line.
pub fn given(subcommand: &str) -> HashSet<String> {
    let matches = Metatape::command().get_matches();
    let Some(matches) = matches.subcommand_matches(subcommand) else { return HashSet::new() };
    let typed = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(typed).map(ToString::to_string).collect()
}

/// `metatape train`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  metatape train
  metatape train --noise flip2:0.4 --weights mean --seed 3 --out runs/flip
  metatape train --noise none --imbalance 100 --method mwnet-longtail
  metatape train --dataset cifar10 --data-dir cifar-10-batches-bin --model resnet32 --lr 0.1
  metatape train --out runs/flip --resume")]
pub struct TrainArgs {
    /// mwnet, or another of the methods that `metatape compare --help` lists
    #[arg(long, value_name = "METHOD", default_value_t = Method::MwNet)]
    pub method: Method,
    /// Do not train the uniform baseline beside the method
    #[arg(long)]
    pub no_baseline: bool,
    /// Data, model, meta step, schedule.
    #[command(flatten)]
    pub run: RunArgs,
    /// Decides meta set, noise, first parameters and order of batches
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, allow_negative_numbers = true, help_heading = "Schedule")]
    pub seed: u64,
    /// Folder for the run's files [default: runs/<date-name>]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Continue the run in --out from its checkpoint, as if it had never stopped
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// Print the summary as JSON instead of tables
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `metatape ablate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Variants, each one change of the published method:
  published          clean balanced meta set, three steps, exact hypergradient; always there
  uniform            no weights
  clean-N            a meta set of N images
  noisy-N            the same images with labels as noisy as the training set's
  imbalanced-N       N clean images in a long tail
  train-batch        training batches as meta batches
  two-steps          w is updated for real, then the weight net at the new w; the step is not recomputed
  every-K            the weight net takes a step once in K steps
  unroll-K           K virtual steps on K batches, and the hypergradient through all of them
  finite-difference  the hypergradient by finite differences

Examples:
  metatape ablate
  metatape ablate --noise flip2:0.4 --seeds 5 --out runs/flip
  metatape ablate --variants published,uniform,train-batch,two-steps --epochs 10
  metatape ablate --out runs/flip --resume")]
pub struct AblateArgs {
    /// What is compared, separated by commas [default: all, with meta sets of 10, 100 and 1000
    /// images, and K of 5 and 20]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub variants: Option<Vec<Variant>>,
    /// Seeds 1 to N of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive, allow_negative_numbers = true)]
    pub seeds: usize,
    /// Data, model, meta step, schedule. The route is that of the variants.
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the study's files [default: runs/<date>-ablate]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Continue the study in --out: finished cells are kept. With --seeds or --variants, more of
    /// them are added to it
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// Print the summary as JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `metatape hypergrad`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  metatape hypergrad --model lenet --precision f64
  metatape hypergrad --model resnet32 --batch 16 --route jvp --json
  metatape hypergrad --batch 8 --dump step.safetensors
  metatape hypergrad --batch 4 --route jvp --print-tape | less
  metatape hypergrad --explain | less
  metatape hypergrad --explain --steps 900 --csv signal.csv")]
pub struct HypergradArgs {
    /// The classifier
    #[arg(long, value_name = MODELS, default_value = "mlp", value_parser = model)]
    pub model: String,
    /// Samples of the batch, and of the meta batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, allow_negative_numbers = true)]
    pub batch: usize,
    /// Decides meta set, noise, first parameters and the batch
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Only this route, beside the reference `reverse` [default: all; per-sample only where it
    /// takes less than 200 GFLOP and its matrices less than 2 GiB]
    #[arg(long, value_name = ROUTES)]
    pub route: Option<Route>,
    /// Data set, noise, long tail, meta set.
    #[command(flatten)]
    pub data: DataArgs,
    /// Options of the meta step.
    #[command(flatten)]
    pub step: StepArgs,
    /// Threads, precision, device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Write all tensors of the step, by the route given (or jvp), to this file
    #[arg(long, value_name = "FILE.safetensors", group = "file", help_heading = "Output")]
    pub dump: Option<PathBuf>,
    /// Overwrite the dump, or the CSV file, if it exists
    #[arg(long, requires = "file", help_heading = "Output")]
    pub force: bool,
    /// Walk through one meta step in words and numbers: its program part by part, what every sample
    /// asks of its weight and why, and what the step costs
    #[arg(long, conflicts_with_all = ["dump", "print_tape", "route"], help_heading = "Explanation")]
    pub explain: bool,
    /// Meta steps to take from fresh networks, of which the last is explained [default: 100]
    #[arg(long, value_name = "N", requires = "explain", value_parser = positive, allow_negative_numbers = true, help_heading = "Explanation")]
    pub steps: Option<usize>,
    /// Write what V learns from to this file: a row for every sample of every step. Columns: step,
    /// sample (its place in the data set), label (as given), true_label, corrupted; loss (l),
    /// weight (V), slope (V' = dV/dl), coefficient (c, its share of the virtual step), u, alpha
    /// (learning rate times the virtual step's gain); pull (-dL_meta/dV), slope_pull
    /// (-dL_meta/dV'), moved (how V moves). With sums over the n rows of a step: mean weights have
    /// pull = alpha u/n; normalised ones, with S = sum V and F = sum V l/S, pull = alpha ((u - sum
    /// u c)/S - (l - F) sum (u V')/S^2), the last term only with --undetached
    #[arg(long, value_name = "FILE.csv", requires = "explain", group = "file", help_heading = "Explanation")]
    pub csv: Option<PathBuf>,
    /// Print the recorded program of the route given (or jvp) instead of running it
    #[arg(long, conflicts_with_all = ["dump", "json"], help_heading = "Output")]
    pub print_tape: bool,
    /// Print JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `metatape info`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}
