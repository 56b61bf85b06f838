//! What tf32 and bf16 cost by definition: whole networks' hypergradients on the CPU in f64 with a precision's roundings, against f64 without. No GPU
//! and no simulator is needed; `cuda_steps.rs` holds the kernels to the same roundings.
//!
//! `cargo test --release --test precisions -- --include-ignored --nocapture` prints the table of the README.

mod common;

use common::machines::cost;
use common::rounded::Rounded;
use common::steps::{all_outputs, fresh, relative_error, whole_networks};
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::meta::StepConfig;
use metatape::program::Backend;

fn hold(wanted: impl Fn(&str) -> bool) {
    for (name, net, batch) in whole_networks().into_iter().filter(|n| wanted(n.0)) {
        let hypergradient = |backend: Box<dyn Backend>| {
            let (mut session, program) = fresh(&net, &StepConfig::default(), batch, backend);
            session.run(&program).unwrap();
            all_outputs(&session, &program, "hypergrad.")
        };
        let exact = hypergradient(Box::new(Cpu::<f64>::new(2).unwrap()));
        for precision in [Precision::Tf32, Precision::Bf16] {
            let error = relative_error(&hypergradient(Box::new(Rounded::new(precision, 2))), &exact);
            println!("{name}, batch {batch}, {}: relative error {error:.1e}", precision.name());
            assert!(error <= cost(precision), "{name} in {}: an error of {error:.3e}", precision.name());
            assert!(error > 1e-4, "{name} in {}: nothing was rounded", precision.name());
        }
    }
}

#[test]
fn networks_of_minutes_of_training() {
    hold(|name| name != "wrn28-10");
}

#[test]
#[ignore = "takes ten minutes and 10 GiB of memory"]
fn the_wide_network() {
    hold(|name| name == "wrn28-10");
}
