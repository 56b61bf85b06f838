//! `metatape bench`: milliseconds of a plain step and of a whole meta step, optimisers included,
//! and the least that they must take.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `args.rs` | the flags |
//! | `steps.rs` | the two steps as plans |
//! | `forecast.rs` | bytes, operations and launches of a plan |
//! | `rates.rs` | what machines can do at most, and so the floor of a step |
//! | `plan.rs` | `--plan` |
//! | `timed.rs` | one configuration timed |

mod args;
mod forecast;
mod plan;
mod rates;
mod steps;
mod timed;

pub use args::BenchArgs;
pub use steps::{plans, prepared};

use metatape::meta::Route;
use metatape::{Error, Result};
use serde_json::{Map, Value};

use super::device::Machine;
use super::report;
use super::values::Graphs;

/// What is planned or timed at once.
struct Configuration<'a> {
    args: &'a BenchArgs,
    model: &'a str,
    /// With the configuration's precision.
    device: Machine,
    /// Whether a GPU replays captured graphs.
    graphs: bool,
    /// Whether this process has done nothing before it.
    first: bool,
}

/// What is known of a configuration.
struct Report {
    text: String,
    json: Map<String, Value>,
}

/// Plans or times all configurations, and prints each when it is known.
pub fn run(args: &BenchArgs) -> Result<()> {
    let configurations = configurations(args);
    let alone = configurations.len() == 1;
    if args.json && !alone {
        return Err(Error::Usage("--json is for one configuration; take --json-lines for several".into()));
    }
    // One start of the device, its libraries and kernels serves all.
    let mut opened = None;
    let mut failed = 0;
    for (i, configuration) in configurations.iter().enumerate() {
        let report =
            if args.plan { plan::run(configuration) } else { timed::run(configuration, &mut opened) };
        match report {
            Ok(report) if args.json => report::print_json(&Value::Object(report.json))?,
            Ok(report) if args.json_lines => report::print(Value::Object(report.json))?,
            Ok(report) => report::print(format_args!("{}{}", if i > 0 { "\n" } else { "" }, report.text))?,
            Err(error) if alone && !args.json_lines => return Err(error),
            Err(error) => {
                failed += 1;
                if args.json_lines {
                    let mut fields = configuration.json();
                    fields.insert("device".into(), configuration.args.device.device.to_string().into());
                    fields.insert("error".into(), error.to_string().into());
                    report::print(Value::Object(fields))?;
                } else {
                    let (title, precision) =
                        (configuration.title(args.route), configuration.device.precision);
                    report::complain(format_args!("metatape: {title}; {precision}: {error}"));
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::Program(format!(
            "{failed} of {} failed",
            metatape::words::counted(configurations.len(), "configuration")
        ))),
    }
}

/// All combinations of what was asked for, the models outermost.
fn configurations(args: &BenchArgs) -> Vec<Configuration<'_>> {
    let models = if args.models.is_empty() { std::slice::from_ref(&args.model) } else { &args.models };
    let precision = [args.precision];
    let precisions = if args.precisions.is_empty() { &precision[..] } else { &args.precisions };
    let graphs: &[bool] = match args.graphs {
        _ if args.no_graph => &[false],
        Graphs::On => &[true],
        Graphs::Off => &[false],
        Graphs::Both => &[true, false],
    };
    let mut all = Vec::new();
    for model in models {
        for precision in precisions {
            let device = args.device.machine(*precision);
            // Where there are no graphs, there is nothing to compare.
            let graphs = if args.plan || !device.may_be_gpu() { &graphs[..1] } else { graphs };
            for graphs in graphs {
                let (device, first) = (device.clone(), all.is_empty());
                all.push(Configuration { args, model, device, graphs: *graphs, first });
            }
        }
    }
    all
}

impl Configuration<'_> {
    fn title(&self, route: Route) -> String {
        let mode = if self.graphs { "" } else { ", no graph" };
        format!("{}, batch {}, route {route}{mode}", self.model, self.args.batch)
    }

    /// The fields that name it.
    fn json(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("model".into(), self.model.into());
        fields.insert("batch".into(), self.args.batch.into());
        fields.insert("route".into(), self.args.route.to_string().into());
        fields.insert("precision".into(), self.device.precision.to_string().into());
        if !self.args.plan {
            fields.insert("graph".into(), self.graphs.into());
        }
        fields
    }
}
