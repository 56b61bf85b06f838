//! The two steps that are planned and timed, and the random images that they are timed on.

use metatape::Result;
use metatape::data::{Dataset, Table};
use metatape::meta::{Route, Weights};
use metatape::nn;
use metatape::program::{Options, Plan};
use metatape::train::values::Precision;
use metatape::train::{Config, Prepared, Stepper};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// Random images in memory, if twice a batch is not more.
const IMAGES: usize = 1000;
const CLASSES: usize = 10;

/// 28×28 grey images for the small networks, 32×32 in colour for the others, with the border for
/// crops that training has there.
///
/// # Errors
/// As [`Prepared::of`].
pub fn prepared(model: &str, batch: usize, route: Route, precision: Precision) -> Result<Prepared> {
    let grey = matches!(model, "mlp" | "lenet");
    let [height, width, channels] = if grey { [28, 28, 1] } else { [32, 32, 3] };
    let mut rng = Pcg64::seed_from_u64(1);
    let mut table = |count: usize| {
        let mut pixels = vec![0; count * height * width * channels];
        rng.fill_bytes(&mut pixels);
        let labels = (0..count).map(|i| (i % CLASSES) as i32).collect();
        Table::images("random".into(), [height, width, channels], pixels, labels)
    };
    let tables = [table(IMAGES.max(2 * batch)), table(CLASSES)];
    let names = (0..CLASSES).map(|class| class.to_string()).collect();
    let statistics = (vec![0.5; channels], vec![0.29; channels]);
    let dataset = Dataset::new("random", tables, names, Some(statistics))?;
    let config = Config {
        model: model.into(),
        meta_size: Some(10 * CLASSES),
        weights: Weights::Mean,
        batch,
        route,
        precision,
        ..Config::default()
    };
    Prepared::of(config, dataset, |classes| nn::named(model, classes))
}

/// A plain step, and the whole meta step.
///
/// # Errors
/// As [`Stepper::lean_tape`].
pub fn plans(data: &Prepared) -> Result<[Plan; 2]> {
    let plan = |tape| Plan::new(&tape, Options::default());
    Ok([plan(Stepper::plain_tape(data)?)?, plan(Stepper::lean_tape(data)?)?])
}
