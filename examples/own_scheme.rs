//! A scheme of one's own, trained and drawn beside the uniform baseline, on the built-in images
//! with 60% of the labels redrawn.
//!
//!     cargo run --release --example own_scheme
//!
//! A soft threshold on the loss, `v(ℓ) = σ((c − ℓ)/τ)`. Its place c falls while the network learns,
//! as the losses of right labels do.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::{Moment, Scheme, Seen};
use metatape::program::Session;
use metatape::tape::{Kind, Tape, Var};
use metatape::train::{Config, Run};
use metatape::{Error, Result};

/// All in nats.
#[derive(Debug)]
struct SoftThreshold {
    /// c at the start.
    first: f64,
    /// c at the end.
    last: f64,
    /// τ.
    width: f64,
}

const THRESHOLD: &str = "scheme.threshold";

impl Scheme for SoftThreshold {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let threshold = tape.input(THRESHOLD, Kind::Float, [])?;
        let threshold = tape.broadcast_to(threshold, tape.shape(seen.losses).clone())?;
        let below = tape.sub(threshold, seen.losses)?;
        let relative = tape.scale(below, 1.0 / self.width)?;
        tape.sigmoid(relative).map(Some)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![(THRESHOLD, vec![self.first + (self.last - self.first) * now.progress()])]
    }
}

pub fn main() -> Result<()> {
    // It is gone at the end; any other folder stays.
    let folder = tempfile::tempdir().map_err(Error::io("a temporary folder", "make"))?;
    let out = folder.path();
    let scheme = Box::new(SoftThreshold { first: 4.0, last: 2.5, width: 0.3 });
    let config = Config { epochs: 3, milestones: Vec::new(), ..Config::default() };
    let session = || Ok(Session::new(Box::new(Cpu::<f32>::new(1)?)));
    let summary = Run::own("soft-threshold", scheme, config, out, &session)?.train(&mut ())?;

    let baseline = summary.baseline_final_test_accuracy.unwrap_or(f64::NAN);
    println!("test accuracy {:.2}%, uniform weights {baseline:.2}%", summary.final_test_accuracy);
    let clean = summary.mean_weight_clean.unwrap_or(f64::NAN);
    let corrupted = summary.mean_weight_corrupted.unwrap_or(f64::NAN);
    println!("mean weight of clean samples {clean:.3}, of corrupted samples {corrupted:.3}");
    let picture = out.join("weight_curve.svg");
    let drawn = std::fs::read_to_string(&picture).map_err(Error::io(&picture, "read"))?;
    println!("the curve is drawn in {}", picture.display());
    if !drawn.contains("soft-threshold, end (epoch 3)") {
        return Err(Error::Program("the picture does not name the scheme".into()));
    }
    // Not `clean <= …`: a number that is missing is no success either.
    if clean > 2.0 * corrupted { Ok(()) } else { Err(Error::Numeric("the labels are not told apart".into())) }
}
