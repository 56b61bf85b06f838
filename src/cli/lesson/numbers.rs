//! The step's per-sample numbers, and the sum over them done again.

use metatape::meta::Weights;
use metatape::train::SampleRow;
use metatape::words::counted;

use super::closed_form;
use crate::cli::explain::Explained;
use crate::cli::report::{self, wrap};

/// Bands of losses that the batch is cut into.
const BANDS: usize = 5;
/// Samples at each end of u that are shown.
const AT_EACH_END: usize = 3;

/// Four significant digits.
pub(super) fn number(x: f64) -> String {
    let digits = if x == 0.0 { 0.0 } else { x.abs().log10().floor() };
    match digits {
        d if (-3.0..4.0).contains(&d) => format!("{x:.0$}", (3.0 - d) as usize),
        _ => format!("{x:.3e}"),
    }
}

pub(super) fn signed(x: f64) -> String {
    if x < 0.0 { format!("−{}", number(-x)) } else { format!("+{}", number(x)) }
}

/// Why a sample's weight moves as it does.
fn why(row: &SampleRow, relative: bool) -> &'static str {
    match (row.pull > 0.0, row.moved > 0.0) {
        _ if row.pull == 0.0 => "nothing asked: a step along it leaves the clean loss as it is",
        _ if row.moved == 0.0 => "heard, but V is saturated here: its slope is nothing",
        (true, true) if relative => "more of it would lower the clean loss: trusted more",
        (false, false) if relative => "less of it would lower the clean loss: trusted less",
        (true, true) => "a step on it lowers the clean loss: trusted more",
        (false, false) => "a step on it raises the clean loss: trusted less",
        (true, false) => "asks for more, and is outvoted",
        (false, true) => "asks for less, and is outvoted",
    }
}

pub(super) fn signal(told: &Explained) -> String {
    let rows = &told.numbers.samples;
    let mut order: Vec<&SampleRow> = rows.iter().collect();
    order.sort_by(|a, b| b.u.total_cmp(&a.u));
    let ends = AT_EACH_END.min(order.len() / 2).max(1);
    let mut shown: Vec<&SampleRow> = order.iter().take(ends).copied().collect();
    // Between the ends: those that move against their own wish, if any, the loudest first.
    let low = order.len().saturating_sub(ends).max(ends);
    let mut between: Vec<&SampleRow> = order[ends.min(order.len())..low.min(order.len())]
        .iter()
        .filter(|r| r.pull * r.moved < 0.0)
        .copied()
        .collect();
    between.sort_by(|a, b| b.pull.abs().total_cmp(&a.pull.abs()));
    between.truncate(2);
    shown.extend(between);
    shown.extend(&order[low.min(order.len())..]);
    let relative = told.data.config.weights == Weights::Normalised;
    let names = &told.data.dataset.class_names;
    let name = |label: i32| names.get(label as usize).map_or("?", String::as_str);
    let mut heading = vec!["image", "given label", ""];
    // How large the class is matters where sizes differ by design.
    heading.extend(told.sizes.as_ref().map(|_| "class has"));
    heading.extend(["loss", "V", "u_i", "asks", "V moves", "why"]);
    let left = [0, 1, 2, heading.len() - 1];
    let mut table = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in shown {
        let truth = match row.corrupted {
            Some(true) => format!("wrong: {}", name(row.true_label)),
            Some(false) => "right".into(),
            None => "-".into(),
        };
        let asks = if row.pull > 0.0 {
            "more"
        } else if row.pull < 0.0 {
            "less"
        } else {
            "-"
        };
        let mut cells = vec![row.sample.to_string(), name(row.label).to_owned(), truth];
        cells.extend(told.sizes.as_ref().map(|_| told.class_counts[row.label as usize].to_string()));
        cells.extend([
            number(row.loss),
            format!("{:.4}", row.weight),
            signed(row.u),
            asks.to_owned(),
            signed(row.moved),
            why(row, relative).to_owned(),
        ]);
        table.push(cells);
    }
    let what = if relative && told.data.config.undetached {
        "A sample asks for more weight where u_i − Σ u_j c_j is above (ℓ_i − F) Σ u_j V′_j / S: weights are shares of one sum, and the loss \
         that V reads is differentiated, too. What it asks is of V_i alone, at fixed slopes V′."
    } else if relative {
        "A sample asks for more weight where u_i is above the batch's weighted mean ū: weights are shares of one sum."
    } else if told.data.config.undetached {
        "At fixed slopes of V, a sample asks for more weight where u_i > 0, for less where u_i < 0; the slopes that the undetached loss adds \
         pull on θ besides."
    } else {
        "A sample asks for more weight where u_i > 0, for less where u_i < 0: −∂L_meta/∂V_i has the sign of u_i."
    };
    format!(
        "THE NUMBERS OF A FEW SAMPLES\n{}\n\n{}\n\n{}",
        wrap(&format!(
            "{what} Its weight moves as θ does, and θ listens to all samples of the batch, and through its optimiser's memory to \
             those of earlier steps: V is one function of the loss, so samples of one loss move together, and some are outvoted."
        )),
        report::table_left(&table, &left),
        bands(told)
    )
}

/// Where V gets its gradient: the batch in bands of its losses.
fn bands(told: &Explained) -> String {
    let rows = &told.numbers.samples;
    let mut order: Vec<&SampleRow> = rows.iter().collect();
    order.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    let mean = |rows: &[&SampleRow], f: fn(&SampleRow) -> f64| {
        rows.iter().map(|r| f(r)).sum::<f64>() / rows.len() as f64
    };
    let known = told.data.split.train.known;
    let mut heading = vec!["losses", "samples"];
    heading.extend(known.then_some("wrong labels"));
    heading.extend(told.sizes.as_ref().map(|_| "of the tail"));
    heading.extend(["mean u", "they ask together", "V on average", "moves"]);
    let mut table = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for band in order.chunks(order.len().div_ceil(BANDS).max(1)) {
        let (first, last) = (band[0].loss, band[band.len() - 1].loss);
        let pull: f64 = band.iter().map(|r| r.pull).sum();
        let mut cells = vec![format!("{} … {}", number(first), number(last)), band.len().to_string()];
        cells.extend(known.then(|| band.iter().filter(|r| r.corrupted == Some(true)).count().to_string()));
        cells.extend(
            told.sizes.as_ref().map(|sizes| band.iter().filter(|r| sizes.of(r) == 2).count().to_string()),
        );
        cells.extend([
            signed(mean(band, |r| r.u)),
            signed(pull),
            format!("{:.4}", mean(band, |r| r.weight)),
            signed(mean(band, |r| r.moved)),
        ]);
        table.push(cells);
    }
    let of = |flag: bool| rows.iter().filter(|r| r.corrupted == Some(flag)).collect::<Vec<_>>();
    let (right, wrong) = (of(false), of(true));
    let mut text = format!(
        "WHERE V GETS ITS GRADIENT\n{}\n\n{}",
        wrap(
            "A vote over losses. V never sees a label, nor whether it is wrong. What reaches it is whether samples whose losses are \
             alike agree or disagree with the clean gradient. Here is the batch in bands of its losses, with Σ −∂L_meta/∂V_i of each."
        ),
        report::table(&table)
    );
    if !right.is_empty() && !wrong.is_empty() {
        let all: Vec<&SampleRow> = rows.iter().collect();
        let (middle, square) = (mean(&all, |r| r.u), mean(&all, |r| r.u * r.u));
        text.push_str("\n\n");
        text.push_str(&wrap(&format!(
            "Mean u of the {} with the right label {}, of the {} with a wrong one {}, and the standard deviation of single \
             samples {}: one sample's u says little. V learns because it pools them, over losses and over steps.",
            counted(right.len(), "sample"),
            signed(mean(&right, |r| r.u)),
            wrong.len(),
            signed(mean(&wrong, |r| r.u)),
            number((square - middle * middle).max(0.0).sqrt())
        )));
    }
    text
}

pub(super) fn sum(told: &Explained) -> String {
    let (numbers, config) = (&told.numbers, &told.data.config);
    let ours = numbers.closed_form.hypergrad.last().copied().unwrap_or(0.0);
    let own = numbers.hypergrad.last().and_then(|h| h.1.first()).copied().unwrap_or(0.0);
    let (distance, cancelled) = told.distance();
    let by_hand = if config.undetached {
        String::new()
    } else {
        " For it, ∂V_i/∂θ = V_i·(1−V_i), so that the numbers that --csv writes and a pocket calculator do."
            .to_owned()
    };
    format!(
        "THE SUM, DONE AGAIN BY HAND\n{}\n\n   \
         {:<28}  {}\n   {:<28}  {}\n\n\
         Over all parameters of θ the two differ by {distance:.1e} of the {} ({}).",
        wrap(&format!(
            "∂L_meta/∂θ = {}. One of θ's parameters is the bias of V's last layer.{by_hand}",
            closed_form(told)
        )),
        format!("the sum over {}", counted(numbers.samples.len(), "sample")),
        signed_long(ours),
        "what the program computed",
        signed_long(own),
        if cancelled { "lengths of its terms, which cancel" } else { "hypergradient's length" },
        config.precision
    )
}

fn signed_long(x: f64) -> String {
    format!("{x:+.6e}").replace('-', "−")
}
