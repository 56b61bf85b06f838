//! `--plan`: what both steps ask of a machine, without running them.

use metatape::{Error, Result};
use serde_json::{Value, json};

use super::forecast::{Forecast, Part};
use super::rates::{Card, Floor, Rates};
use super::steps::{plans, prepared};
use super::{Configuration, Report};
use crate::cli::device::On;
use crate::cli::report;

/// The card that is assumed where none is named.
const DEFAULT_CARD: &str = "h100";

/// A step that is planned.
struct Planned {
    /// In JSON, and for people.
    names: [&'static str; 2],
    forecast: Forecast,
    floor: Floor,
}

/// Plans both steps.
pub fn run(configuration: &Configuration) -> Result<Report> {
    let Configuration { args, model, device, .. } = configuration;
    let on = device.on()?;
    let data = prepared(model, args.input.as_ref(), args.batch, args.route, device.precision)?;
    let [plain, meta] = plans(&data)?.map(|plan| Forecast::new(&plan, on, device.precision));
    let (plain, meta) = (plain?, meta?);
    let [of_plain, of_meta] = match (on, &args.rates) {
        (On::Cuda(precision), card) => {
            let card = card.clone().map_or_else(|| DEFAULT_CARD.parse::<Card>(), Ok)?;
            [card.rates(precision), card.rates(precision)]
        }
        (On::Cpu, Some(_)) => return Err(no_card()),
        (On::Cpu, None) => Rates::of_cpu(device.threads()?, device.precision, [plain.memory, meta.memory])?,
    };
    let both = [(["plain", "plain step"], plain, of_plain), (["meta", "meta step"], meta, of_meta)]
        .map(|(names, forecast, rates)| Planned { names, floor: Floor::new(&forecast, rates), forecast });
    let name = if on == On::Cpu { "cpu" } else { "cuda" };
    let mut json = configuration.json();
    json.insert("device".into(), name.into());
    for Planned { names, forecast, floor } in &both {
        let mut fields = forecast.json();
        fields.insert("floor_ms".into(), json!(floor.ms()));
        fields.insert("floor".into(), floor.json());
        json.insert(names[0].to_owned(), Value::Object(fields));
    }
    let title =
        format!("{}; {name}, {}: planned, not run", configuration.title(args.route), device.precision);
    Ok(Report { text: format!("{title}\n\n{}", text(&both)), json })
}

/// `--rates` where there is no card.
pub fn no_card() -> Error {
    Error::Usage("--rates gives the rates of a card; those of the CPU are measured".into())
}

fn text(both: &[Planned; 2]) -> String {
    let told = both[0].forecast.told();
    let mut steps = vec![heading(&["", told], &both[0].forecast, &["GB read", "GB written", "GFLOP"])];
    let mut floors = vec![row(&["least ms for", "bytes", "operations"])];
    floors[0].extend(both[0].floor.launches.map(|_| "launches".to_owned()));
    floors[0].extend(row(&["floor", "set by"]));
    for Planned { names, forecast, floor } in both {
        let work = &forecast.all.work;
        steps.push(cells(names[1], &forecast.all, &[giga(work.read), giga(work.written), giga(work.flops)]));
        let mut line = vec![names[1].to_owned(), report::ms(floor.bytes), report::ms(floor.operations)];
        line.extend(floor.launches.map(report::ms));
        line.extend([report::ms(floor.ms()), floor.binding().1.to_owned()]);
        floors.push(line);
    }
    let meta = &both[1].forecast;
    let mut parts = vec![heading(&["kernel of a meta step", told], meta, &["GB", "GFLOP"])];
    let part = |p: &Part| cells(p.name, p, &[giga(p.work.bytes()), giga(p.work.flops)]);
    parts.extend(meta.parts.iter().map(part));
    let rates = Floor::rates(&both.each_ref().map(|p| &p.floor));
    [report::table(&steps), report::table(&floors), rates, report::table(&parts)].join("\n\n")
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

/// With columns for blocks where there are launches.
fn heading(first: &[&str], forecast: &Forecast, last: &[&str]) -> Vec<String> {
    let blocks: &[&str] = if forecast.all.launches.is_some() { &["of ≤ 32 blocks", "of one"] } else { &[] };
    row(&[first, blocks, last].concat())
}

fn cells(name: &str, part: &Part, last: &[String]) -> Vec<String> {
    let blocks = part.launches.iter().flat_map(|l| [l.few.to_string(), l.one.to_string()]);
    let first = [name.to_owned(), part.told().to_string()];
    first.into_iter().chain(blocks).chain(last.iter().cloned()).collect()
}

/// In billions.
fn giga(count: u64) -> String {
    format!("{:.3}", count as f64 / 1e9)
}
