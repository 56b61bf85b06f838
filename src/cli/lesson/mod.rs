//! The words of `metatape hypergrad --explain`.

use std::collections::HashMap;

use metatape::Result;
use metatape::data::Noise;
use metatape::meta::{Optimiser, VirtualStep, Weights};
use metatape::program::Part;
use metatape::tape::Var;
use metatape::words::counted;

use super::args::HypergradArgs;
use super::defaults;
use super::explain::Explained;
use super::report::{self, wrap};

mod numbers;
mod parts;

use numbers::{number, signal, sum};
use parts::{class_sizes, over_time};

/// Parts with more operations than this are printed in part: those of deep networks, and Adam's.
const MOST_OPERATIONS: usize = 50;
/// So many of them, then.
const FIRST_OPERATIONS: usize = 10;

/// Prints the whole walk.
pub fn print(args: &HypergradArgs, told: &Explained) -> Result<()> {
    let sections = [
        opening(told),
        program(told),
        signal(told),
        class_sizes(told),
        over_time(told),
        sum(told),
        cost(told),
        closing(args, told),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|s| !s.is_empty()).collect();
    report::print(sections.join("\n\n"))
}

fn opening(told: &Explained) -> String {
    let (config, numbers) = (&told.data.config, &told.numbers);
    // Beside the parameters themselves there are θ's moments.
    let parameter = |name: &str, prefix: &str| name.starts_with(prefix) && !name.starts_with("theta.moment");
    let count = |prefix: &str| -> usize {
        let states = told.tape.states().iter().filter(|s| parameter(&s.0, prefix));
        states.map(|s| told.tape.shape(s.1).count()).sum()
    };
    let n = config.batch;
    let tail = config.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
    format!(
        "One meta step, explained: step {} of {} on {} (noise {}{tail}), seed {}; {}\n\n\
         w    the classifier's {} parameters; α = {} is their learning rate\n\
         ℓ_i  the loss of sample i of the training batch, i = 1 … {n}, under its label as given{}\n\
         V    the weight net: V(ℓ; θ) is the weight of a sample whose loss is ℓ; θ are its {} parameters\n\
         ŵ    where the classifier would be after a step with these weights: a function of θ\n\
         L_meta(ŵ) = {}: the mean loss there of {n} samples from the meta set, whose labels are right.\n\
         \u{20}    The step asks how θ should change to make it smaller, then takes the real step with the new θ.{}",
        numbers.step,
        config.model,
        told.data.dataset.name,
        config.noise,
        config.seed,
        told.machine,
        count("w."),
        numbers.lr,
        if config.noise == Noise::None { "" } else { ", which may be wrong" },
        count("theta."),
        number(numbers.meta_loss),
        published(&defaults::to_be_as_train()),
    )
}

/// That this is not the step that `train --method mwnet` takes by default, where it is not.
fn published(flags: &[String]) -> String {
    if flags.is_empty() {
        return String::new();
    }
    let words = format!(
        "The defaults here are the published step's, not those of `metatape train --method mwnet`; for its step, add {}.",
        flags.join(" ")
    );
    format!("\n\n{}", wrap(&words))
}

/// What a part is for: its title, and its words.
fn words(part: &Part, told: &Explained) -> (String, String) {
    let config = &told.data.config;
    let step = match config.virtual_step {
        VirtualStep::Plain => "Plain SGD",
        VirtualStep::Momentum => "SGD with the real step's momentum and weight decay",
    };
    let rule = match config.weight_net_rule(config.method).0 {
        Optimiser::Adam(_) => "Adam, whose steps have about one size whatever the gradient's",
        Optimiser::Sgd(_) => "SGD with momentum",
    };
    let title = part.title.as_str();
    let (title, text) = match title {
        "losses at w" => (
            "losses at w",
            "Forward once, on the training batch: one loss a sample. All that follows reads these values; none is \
             computed again."
                .to_owned(),
        ),
        "virtual step" => (
            "virtual step: ŵ = w − α Σ c_i ∇ℓ_i(w)",
            format!(
                "{step}, with coefficients {}. V reads each loss{}. \
                 One backward walk with the coefficients as cotangents: Σ c_i ∇ℓ_i costs the same as a mean gradient.",
                coefficients(told),
                if config.undetached { " and is differentiated through it" } else { " as a plain number" }
            ),
        ),
        "meta loss and its gradient at ŵ" => (
            "meta gradient: g = ∇L_meta(ŵ)",
            "Forward and backward at ŵ on the clean meta batch: in which direction of w-space does the clean loss rise?"
                .to_owned(),
        ),
        t if t.starts_with("jvp") => (
            "jvp: u_i = ⟨g, ∇ℓ_i(w)⟩, for all samples at once",
            "One forward walk that carries tangents: move w along g, and see how fast each training loss changes. u_i > 0: a step \
             that lowers sample i's loss lowers the clean loss too. This is the one place where training and meta batch meet, \
             and there is no Hessian in it: only first derivatives, of the losses that are on the tape already."
                .to_owned(),
        ),
        "hypergradient" => (
            "hypergradient: ∂L_meta/∂θ = −α ∇_θ ⟨u, c(θ)⟩",
            format!(
                "u is now n numbers, and only V is differentiated, a net that reads single losses: {}.",
                closed_form(told)
            ),
        ),
        "weight-net step" => ("weight net's step: θ → θ⁺", format!("{rule}.")),
        "real step" => (
            "real step: w → w⁺, from the same w, with V(ℓ_i; θ⁺)",
            "The losses are those of the first part: V is asked again, and one more backward walk gives the gradient."
                .to_owned(),
        ),
        other => (other, String::new()),
    };
    (title.to_owned(), text)
}

/// c_i as a formula.
fn coefficients(told: &Explained) -> &'static str {
    let config = &told.data.config;
    match (config.weights, config.undetached) {
        (Weights::Mean, false) => "c_i = V(ℓ_i; θ)/n",
        (Weights::Mean, true) => "c_i = (V_i + V′_i ℓ_i)/n, where V′ = dV/dℓ",
        (Weights::Normalised, false) => "c_i = V(ℓ_i; θ)/S, S = Σ V",
        (Weights::Normalised, true) => {
            "c_i = (V_i + V′_i (ℓ_i − F))/S, where V′ = dV/dℓ, S = Σ V, F = Σ V ℓ/S"
        }
    }
}

/// The hypergradient as a formula; α with the virtual step's gain.
fn closed_form(told: &Explained) -> String {
    let config = &told.data.config;
    let alpha = match config.virtual_step {
        VirtualStep::Momentum if config.nesterov => "α(1 + μ)",
        _ => "α",
    };
    match (config.weights, config.undetached) {
        (Weights::Mean, false) => format!("−({alpha}/n) Σ u_i ∂V_i/∂θ"),
        (Weights::Mean, true) => format!("−({alpha}/n) Σ u_i ∂(V_i + V′_i ℓ_i)/∂θ"),
        (Weights::Normalised, false) => format!("−({alpha}/S) Σ (u_i − ū) ∂V_i/∂θ, ū = Σ V u/S"),
        (Weights::Normalised, true) => format!("−{alpha} Σ u_i ∂c_i/∂θ"),
    }
}

fn program(told: &Explained) -> String {
    let mut text = format!(
        "THE PROGRAM\n{}",
        wrap(
            "Each line is an operation as recorded: result = operation arguments : shape. Names on the right are those of the \
             mathematics; `%n` is a value without one. Derivatives are operations too: gemm→A and gemm→B are the two gradients of \
             a matrix product, mask is ReLU and its own derivative, residual is softmax − one-hot, the derivative of cross-entropy."
        )
    );
    let names: HashMap<Var, String> =
        told.tape.outputs().iter().map(|(name, v)| (*v, symbol(name))).collect();
    for (i, part) in told.parts.iter().enumerate() {
        let (title, words) = words(part, told);
        text.push_str(&format!("\n\n{}. {title}\n   {}", i + 1, wrap(&words).replace('\n', "\n   ")));
        let shown = match part.operations.len() {
            n if n > MOST_OPERATIONS => FIRST_OPERATIONS,
            n => n,
        };
        for var in &part.operations[..shown] {
            let line = told.tape.line(*var);
            match names.get(var) {
                Some(name) => text.push_str(&format!("\n     {line:<68}  {name}")),
                None => text.push_str(&format!("\n     {line}")),
            }
        }
        let rest = part.operations.len() - shown;
        if rest > 0 {
            text.push_str(&format!("\n     … {rest} more (--print-tape shows all)"));
        }
    }
    text
}

/// An output's name in the page's mathematics.
fn symbol(output: &str) -> String {
    let (head, parameter) = output.split_once('.').unwrap_or((output, ""));
    match head {
        "loss" => "ℓ".into(),
        "weight" => "V(ℓ; θ)".into(),
        "weight_next" => "V(ℓ; θ⁺)".into(),
        "meta_loss" => "L_meta(ŵ)".into(),
        "virtual" => format!("ŵ: {parameter}"),
        "meta_grad" => format!("g: {parameter}"),
        "hypergrad" => format!("∂L_meta/∂θ: {parameter}"),
        "theta_next" => format!("θ⁺: {parameter}"),
        "w_next" => format!("w⁺: {parameter}"),
        _ => output.to_owned(),
    }
}

fn cost(told: &Explained) -> String {
    let cost = &told.cost;
    let heading = ["part", "operations", "MFLOP", "forwards F", "rule"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for part in &told.parts {
        let rule = match part.title.as_str() {
            "losses at w" => "1",
            "virtual step" | "real step" => "2",
            "meta loss and its gradient at ŵ" => "3",
            t if t.starts_with("jvp") => "2",
            _ => "0",
        };
        table.push(vec![
            part.title.split([':', ',']).next().unwrap_or_default().to_owned(),
            part.operations.len().to_string(),
            format!("{:.3}", part.flops as f64 / 1e6),
            format!("{:.2}", cost.forwards(part.flops)),
            rule.to_owned(),
        ]);
    }
    let operations: usize = told.parts.iter().map(|p| p.operations.len()).sum();
    table.push(vec![
        "as recorded".into(),
        operations.to_string(),
        format!("{:.3}", cost.recorded as f64 / 1e6),
        format!("{:.2}", cost.forwards(cost.recorded)),
        "10".into(),
    ]);
    let mut total = |name: &str, kernels: usize, flops: u64| {
        let (mflop, forwards) = (flops as f64 / 1e6, cost.forwards(flops));
        let cells =
            [format!("{kernels} kernels"), format!("{mflop:.3}"), format!("{forwards:.2}"), String::new()];
        table.push([&[name.to_owned()], &cells[..]].concat());
    };
    total("as it runs", cost.kernels, cost.running);
    total("a plain step", cost.plain_kernels, cost.plain);
    let intro = format!(
        "Counted from the program: multiplications and additions of its matrix products and convolutions. F is one forward pass \
         of a batch, {:.3} MFLOP. The rule says 10F: a backward or forward-mode walk through a layer is two products, one for \
         what comes from its input, one for its parameters.",
        cost.forward as f64 / 1e6
    );
    format!("THE COST\n{}\n\n{}\n\n{}", wrap(&intro), report::table(&table), wrap(&remark(told)))
}

/// What the count says beside the rule.
fn remark(told: &Explained) -> String {
    let cost = &told.cost;
    let (recorded, running) = (cost.forwards(cost.recorded), cost.forwards(cost.running));
    let count = if recorded < 9.95 {
        format!(
            "{recorded:.2}F are fewer than 10F because nothing has to reach the images: at the first layer each walk needs one \
             product, not two, and that layer's share of the work decides how much this saves."
        )
    } else if recorded < 10.05 {
        format!("{recorded:.2}F: the rule holds.")
    } else {
        format!("{recorded:.2}F are more than 10F: the weight net is not small beside this classifier.")
    };
    let rewritten = if running < recorded - 0.005 {
        format!(
            " Rewriting before the run leaves {running:.2}F: products of three matrices take the cheaper order, so that gradients \
             of which only products with a batch are wanted are never formed."
        )
    } else {
        String::new()
    };
    format!(
        "{count}{rewritten} A plain training step without weights, 3F by the rule, is {:.2}F here: a meta step is {:.2} of them.",
        cost.forwards(cost.plain),
        cost.running as f64 / cost.plain as f64
    )
}

fn closing(args: &HypergradArgs, told: &Explained) -> String {
    match &args.csv {
        Some(path) => format!(
            "written: {} ({}, {} each: loss, V, V′, c, u, what each asks and how V moves; --help says which column is what)",
            path.display(),
            counted(told.numbers.step as usize, "step"),
            counted(told.numbers.samples.len(), "sample")
        ),
        None => "--csv FILE --steps N writes these numbers for every sample of every step; src/meta/mod.rs derives the formulas."
            .to_owned(),
    }
}
