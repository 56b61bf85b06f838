//! All flags, their defaults and their help.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, Parser, Subcommand};
use metatape::tape::Shape;
use metatape::train::ablation::Variant;
use metatape::train::values::{MODELS, model, positive, rate};
use metatape::train::{Config, Method, NetworkFile, setting};
use metatape::{Error, Result};

use super::bench::BenchArgs;
use super::compare::CompareArgs;
use super::device::Machine;
use super::evaluate::EvaluateArgs;
use super::kernels::KernelsArgs;
use super::predict::PredictArgs;
use super::report::complain;
use super::values::{Bound, DeviceChoice, Milestones, sample, seed};

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
  metatape evaluate --run runs/a                    how well the run's network does, class by class
  metatape predict --run runs/a photos/             what it takes files for
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
    /// Test a run's network: accuracy, each class, confusion; on its own data or on others
    Evaluate(EvaluateArgs),
    /// Classify files with a run's network
    Predict(PredictArgs),
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

/// Where to compute.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Machine")]
pub struct DeviceArgs {
    /// CPU threads; results do not depend on them [default: all]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub threads: Option<usize>,
    /// cpu, cuda, cuda:N (GPU number N, from 0), or auto: the first GPU that works with the
    /// precision, or else the CPU
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
}

/// A run's settings and its machine: shared by all commands that train.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Data, model, meta step, schedule, precision.
    #[command(flatten)]
    pub config: Config,
    /// The classifier's learning rate, in the first epoch [default: 0.05 for batches of 100 and
    /// more, in proportion to --batch for smaller ones]
    #[arg(long, value_name = "LR", value_parser = rate, help_heading = "Meta step")]
    pub lr: Option<f64>,
    /// The largest norm of the gradient that the classifier's real step takes, over all parameters
    /// and before weight decay and momentum: a longer one is scaled down to it; or none [default:
    /// 2, none in hypergrad]
    #[arg(long, value_name = "NORM|none", help_heading = "Meta step", allow_negative_numbers = true)]
    pub clip_grad: Option<Bound>,
    /// Numbers of epochs, ascending and separated by commas, after which the learning rate is
    /// divided by 10; or none: it stays. One that training does not go beyond does nothing until
    /// --resume adds epochs, and is told of; an error if none is below --epochs [default: 66% and
    /// 85% of --epochs]
    #[arg(long, value_name = "EPOCHS|none", help_heading = "Schedule")]
    pub milestones: Option<Milestones>,
    /// A method's own setting; may be given several times: METHOD.lr (its learning rate),
    /// adaboost.rounds, focal.gamma, ohem.share, spl-hard.first and .pace, spl-linear.first and
    /// .pace, geman-mcclure.sigma, gce.q, class-balanced.beta, mentornet-pd.percentile, .inertia,
    /// .width and .burn-in, co-teaching.noise and .ramp, fine-tune.share and .factor,
    /// mwnet-soft.inertia, .from and .to
    #[arg(long, value_name = "METHOD.NAME=VALUE", value_parser = setting, help_heading = "Schedule")]
    pub set: Vec<(String, f64)>,
    /// Threads, device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How often a training is kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct KeepArgs {
    /// Also write a checkpoint whenever so many minutes have gone by since the last one, in the
    /// middle of an epoch too; without it, one is written after every epoch. Ctrl-C and SIGTERM
    /// write one as well
    #[arg(long, value_name = "MINUTES", value_parser = rate, help_heading = "Output", allow_negative_numbers = true)]
    pub checkpoint_every: Option<f64>,
}

impl RunArgs {
    /// The machine that the flags name.
    pub fn machine(&self) -> Machine {
        self.device.machine(self.config.precision)
    }

    /// The configuration of a run, with what follows from other flags.
    ///
    /// # Errors
    /// If the data's folder has no absolute path: a run can be resumed from another folder. If the
    /// network's file cannot be read.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.config.clone();
        let Config { data_dir, meta_dir, train_labels, init, .. } = &mut config;
        for path in [data_dir, meta_dir, train_labels, init].into_iter().flatten() {
            *path = std::path::absolute(&*path).map_err(Error::io(&*path, "find"))?;
        }
        config.init_sha256 = config.init.as_deref().map(NetworkFile::read).transpose()?.map(|file| file.hash);
        config.read_model()?;
        config.threads = self.device.threads;
        for (name, value) in &self.set {
            if let Some(other) = config.set.insert(name.clone(), *value) {
                return Err(Error::Usage(format!(
                    "--set {name} is given twice, {other} and {value}; leave one out"
                )));
            }
        }
        config.clip_grad = self.clip_grad.unwrap_or(Bound(Some(Config::CLIP_GRAD))).0;
        config.lr = self.lr.unwrap_or_else(|| Config::lr_of(config.batch));
        config.milestones = match &self.milestones {
            Some(Milestones(typed)) => typed.clone(),
            None => Config::milestones_of(config.epochs),
        };
        Ok(config)
    }
}

/// The names of the fields of a subcommand whose flags stand on the command line.
pub fn given(subcommand: &str) -> HashSet<String> {
    let Ok(matches) = super::defaults::matches() else { return HashSet::new() };
    let Some(matches) = matches.subcommand_matches(subcommand) else { return HashSet::new() };
    let typed = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    matches.ids().filter(typed).map(ToString::to_string).collect()
}

/// Whether a field's flag stands on the command line.
pub fn typed(subcommand: &str) -> impl Fn(&str) -> bool {
    let given = given(subcommand);
    move |field| given.contains(if field == "virtual" { "virtual_step" } else { field })
}

/// What there is to say of milestones on the command line that training does not go beyond, and
/// whether it goes beyond none.
fn idle_milestones(subcommand: &str, config: &Config) -> Option<(String, bool)> {
    let Config { milestones, epochs, .. } = config;
    let idle: Vec<String> = milestones.iter().filter(|m| *m >= epochs).map(usize::to_string).collect();
    let what = format!("--milestones {}: training ends with --epochs {epochs}", idle.join(","));
    let told = !idle.is_empty() && given(subcommand).contains("milestones");
    told.then_some((what, idle.len() == milestones.len()))
}

/// Refuses milestones of a new training, or of one of more epochs, that it goes beyond none of.
///
/// # Errors
/// [`Error::Usage`] naming them.
pub fn check_milestones(subcommand: &str, config: &Config) -> Result<()> {
    match idle_milestones(subcommand, config) {
        Some((what, true)) => Err(Error::Usage(format!(
            "{what}, and the learning rate would never fall; give numbers below that, or none"
        ))),
        _ => Ok(()),
    }
}

/// Tells of milestones that training does not go beyond.
pub fn tell_milestones(subcommand: &str, config: &Config) {
    if let Some((what, _)) = idle_milestones(subcommand, config) {
        complain(format_args!("metatape: {what}, and the learning rate does not fall there"));
    }
}

/// `metatape train`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  metatape train
  metatape train --noise flip2:0.4 --seed 3 --out runs/flip
  metatape train --method mwnet --weights mean
  metatape train --noise none --imbalance 100 --method mwnet-longtail
  metatape train --dataset cifar10 --data-dir cifar-10-batches-bin --model resnet32 --lr 0.1
  metatape train --out runs/flip --resume
  metatape train --out runs/flip --resume --epochs 40")]
pub struct TrainArgs {
    /// mwnet-soft (ours), mwnet-published, or another of the methods that `metatape compare --help`
    /// lists
    #[arg(long, value_name = "METHOD", default_value_t = Method::MwNetSoft)]
    pub method: Method,
    /// Do not train the uniform baseline beside the method
    #[arg(long)]
    pub no_baseline: bool,
    /// Data, model, meta step, schedule.
    #[command(flatten)]
    pub run: RunArgs,
    /// Decides meta set, noise, first parameters and order of batches
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, help_heading = "Schedule")]
    pub seed: u64,
    /// Folder for the run's files [default: runs/<date-name>]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Continue the run in --out from its checkpoint, as if it had never stopped. With --epochs,
    /// more of them are added to it, finished or not; with --data-dir, its data have moved there
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// How often it is kept.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Write metrics.csv also as TensorBoard's event files, into the folder tensorboard of the run
    #[arg(long, help_heading = "Output")]
    pub tensorboard: bool,
    /// Fail if a training has gone wrong in one of the ways that are warned of; all files are
    /// written nevertheless
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
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
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    pub seeds: usize,
    /// Data, model, meta step, schedule. The route is that of the variants.
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the study's files [default: runs/<date>-ablate]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Continue the study in --out: finished cells are kept. With --seeds or --variants, more of
    /// them are added to it; with --data-dir, its data have moved there
    #[arg(long, requires = "out", help_heading = "Output")]
    pub resume: bool,
    /// How often a cell is kept.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Fail if a training has gone wrong in one of the ways that are warned of; all files are
    /// written nevertheless
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
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
    /// Decides meta set, noise, first parameters and the batch
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed)]
    pub seed: u64,
    /// Data, model, meta step, precision.
    #[command(flatten)]
    pub run: RunArgs,
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
    #[arg(long, value_name = "N", requires = "explain", value_parser = positive, help_heading = "Explanation")]
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
#[command(after_help = "Examples:
  metatape info --model resnet32 > mine.toml      a file to begin from
  metatape info --model mine.toml --input 32x32x3 its parameters

A file has the layers in order, each with its number, or its name alone:
  conv = OUT, size = K, [stride, pad, init, bias]    linear = OUT, [init, bias]    batch-norm    layer-norm [= AXES]
  group-norm = GROUPS    dropout = P    max-pool = K, [stride]    avg-pool = K    global-avg-pool    flatten
  relu    tanh    sigmoid    gelu    softplus    abs    subsample = K, [channels]
  residual = [LAYERS], [before = [LAYERS], shortcut = [LAYERS]]    repeat = N, layers = [LAYERS]
OUT is a number or \"classes\"; init and bias are torch, kaiming, kaiming-fan-out or zero. Each may have a name.")]
pub struct InfoArgs {
    /// Print a network's file instead
    #[arg(long, value_name = MODELS, value_parser = model)]
    pub model: Option<String>,
    /// With --model: print what parameters it has on images or features of this size
    #[arg(long, value_name = "HxWxC|D", value_parser = sample, requires = "model")]
    pub input: Option<Shape>,
    /// With --input: the number of classes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive, requires = "input")]
    pub classes: usize,
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}
