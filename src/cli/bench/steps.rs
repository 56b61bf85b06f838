//! The two steps that are planned and timed, and the random samples that they are timed on.

use metatape::data::{Dataset, Table};
use metatape::meta::{Route, Weights};
use metatape::program::{Options, Plan};
use metatape::tape::Shape;
use metatape::train::values::Precision;
use metatape::train::{Config, Prepared, Stepper};
use metatape::{Result, room};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Random images in memory, if twice a batch is not more.
const IMAGES: usize = 1000;
const CLASSES: usize = 10;

/// Samples of the extents `input`, if it is given: images `[h, w, c]` or features `[d]`. Otherwise
/// 28×28 grey images for the small networks, 32×32 in colour for the others. Those in colour have
/// the border for crops that training has there.
///
/// # Errors
/// As [`Prepared::of`].
pub fn prepared(
    model: &str,
    input: Option<&Shape>,
    batch: usize,
    route: Route,
    precision: Precision,
) -> Result<Prepared> {
    let grey = matches!(model, "mlp" | "lenet");
    let default = Shape::from(if grey { [28, 28, 1] } else { [32, 32, 3] });
    let input = input.unwrap_or(&default);
    let channels = input.last().copied().unwrap_or(1);
    let bytes = if input.len() == 3 { 1 } else { size_of::<f32>() };
    let samples = IMAGES.max(2 * batch) + CLASSES;
    let all = samples.saturating_mul(input.count()).saturating_mul(bytes);
    // All of them, and once more where they are put in place.
    room::check(
        all.saturating_mul(2),
        &format!("--input {input} with --batch {batch}"),
        "take smaller ones",
    )?;
    let mut rng = Pcg64::seed_from_u64(1);
    let mut table = |count: usize| {
        let (name, numbers) = ("random".into(), count * input.count());
        let labels = (0..count).map(|i| (i % CLASSES) as i32).collect();
        match input[..] {
            [height, width, channels] => {
                let mut pixels = vec![0; numbers];
                rng.fill_bytes(&mut pixels);
                Table::images(name, [height, width, channels], pixels, labels)
            }
            _ => Table::features(name, channels, (0..numbers).map(|_| rng.random()).collect(), labels),
        }
    };
    let tables = [table(IMAGES.max(2 * batch)), table(CLASSES)];
    let names = (0..CLASSES).map(|class| class.to_string()).collect();
    let statistics = (vec![0.5; channels], vec![0.29; channels]);
    let dataset = Dataset::new("random", tables, names, Some(statistics))?;
    let mut config = Config {
        model: model.into(),
        meta_size: Some(10 * CLASSES),
        weights: Weights::Mean,
        batch,
        lr: Config::lr_of(batch),
        route,
        precision,
        ..Config::default()
    };
    config.read_model()?;
    let named = config.clone();
    Prepared::of(config, dataset, |classes| named.network(classes))
}

/// A plain step, and the whole meta step.
///
/// # Errors
/// As [`Stepper::lean_tape`].
pub fn plans(data: &Prepared) -> Result<[Plan; 2]> {
    let plan = |tape| Plan::new(&tape, Options::default());
    Ok([plan(Stepper::plain_tape(data)?)?, plan(Stepper::lean_tape(data)?)?])
}
