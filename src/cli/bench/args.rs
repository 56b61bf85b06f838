//! The flags of `metatape bench`.

use clap::Args;
use metatape::meta::Route;
use metatape::tape::Shape;
use metatape::train::values::{MODELS, Precision, ROUTES, model, positive, rate};

use super::rates::Card;
use crate::cli::args::DeviceArgs;
use crate::cli::values::{Graphs, sample};

/// `metatape bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Random samples in memory, optimisers included.

The floor is the least that a step can take: the largest of bytes over bandwidth, operations over their rate, and on a card launches times \
1.3 us, which is assumed. Bytes: every kernel reads each of its tensors once and writes each once, as wide as it is stored. \
Operations: those of matrix products and convolutions, as direct sums have them; on a CPU in f32 those of Winograd's algorithm where \
it does a convolution, which are a sixth to a half as many, its transforms not counted. Rates: a card's are its data sheet's; the CPU's are measured, multiply-adds in \
registers and a copy within as much memory as the step has. A step whose tensors pass from kernel to kernel in a cache can stay below \
the floor of its bytes.

Examples:
  metatape bench --model lenet --batch 100 --steps 50
  metatape bench --model resnet32 --route reverse --threads 1 --json
  metatape bench --model wrn28-10 --device cuda --precision bf16
  metatape bench --plan --model resnet32 --device cuda --precision bf16 --rates h200
  metatape bench --models mlp,lenet --device cuda --precisions f32,tf32,bf16 --graphs both --json-lines")]
pub struct BenchArgs {
    /// The classifier: a built-in one, or a file of layers (`metatape info --model lenet` prints
    /// one)
    #[arg(long, value_name = MODELS, default_value = "mlp", value_parser = model)]
    pub model: String,
    /// Several classifiers, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = model, conflicts_with = "model")]
    pub models: Vec<String>,
    /// What the samples are like: an image's HxWxC, or the number of features [default: 32x32x3;
    /// 28x28x1 for mlp and lenet]
    #[arg(long, value_name = "HxWxC|D", value_parser = sample)]
    pub input: Option<Shape>,
    /// Samples of the batch, and of the meta batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub batch: usize,
    /// Steps of each kind that are timed
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = positive)]
    pub steps: usize,
    /// The classifier's learning rate: too large a one leaves the range of numbers in many steps
    /// [default: that of `metatape train` for the batch]
    #[arg(long, value_name = "LR", value_parser = rate)]
    pub lr: Option<f64>,
    /// How the hypergradient is computed
    #[arg(long, value_name = ROUTES, default_value_t = Route::Layerwise)]
    pub route: Route,
    /// Time nothing: show what the steps ask of the machine, launches, bytes and operations, and
    /// the floor. With --device cuda no card is needed
    #[arg(long, conflicts_with_all = ["steps", "lr", "profile", "no_graph", "graphs"])]
    pub plan: bool,
    /// Floating-point numbers: f32 anywhere; f64 on the CPU; on a GPU also tf32 (products of
    /// factors rounded to 10 bits) and bf16 (activations stored in 16 bits, too)
    #[arg(long, value_name = "f32|f64|tf32|bf16", default_value_t = Precision::F32, help_heading = "Machine")]
    pub precision: Precision,
    /// Threads, device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Several kinds of floating-point numbers, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "precision",
        help_heading = "Machine"
    )]
    pub precisions: Vec<Precision>,
    /// On a GPU, launch every kernel by itself instead of replaying a captured graph
    #[arg(long, help_heading = "Machine")]
    pub no_graph: bool,
    /// On a GPU, replay a captured graph (on), launch every kernel by itself (off), or time one
    /// after the other [default: on]
    #[arg(
        long,
        value_name = "on|off|both",
        default_value = "on",
        hide_default_value = true,
        conflicts_with = "no_graph",
        help_heading = "Machine"
    )]
    pub graphs: Graphs,
    /// What the card can do at most: h100, h200, a100 (SXM, data sheets), or a TOML file with name,
    /// bandwidth_tb_s, f32_tflop_s, tf32_tflop_s, bf16_tflop_s [default: by the card's name; h100
    /// for --plan]
    #[arg(long, value_name = "CARD|FILE", help_heading = "Machine")]
    pub rates: Option<Card>,
    /// Show where a meta step's time goes, kernel by kernel
    #[arg(long, help_heading = "Output")]
    pub profile: bool,
    /// Print JSON instead of tables
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Print a line of JSON for each combination of --models, --precisions and --graphs as soon as
    /// it is known. One that fails is a line with its error, and the others go on; the exit code is
    /// then 1
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub json_lines: bool,
}
