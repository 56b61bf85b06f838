//! What tf32 and bf16 cost by definition: whole networks' hypergradients on the CPU in f64 with a
//! precision's roundings, against f64 without. No GPU and no simulator is needed; `cuda_steps.rs`
//! holds the kernels to the same roundings.
//!
//! `cargo test --release --test precisions -- --include-ignored --nocapture` prints the table of
//! the README.

#![allow(clippy::print_stdout)]

mod common;

use common::machines::cost;
use common::rounded::{Rounded, Rounding, cut_to_tf32, other_sum, to_tf32};
use common::steps::{Net, all_outputs, exact, fresh, relative_error, whole_networks};
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::meta::StepConfig;
use metatape::program::Backend;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn hypergradient(net: &Net, batch: usize, backend: Box<dyn Backend>) -> Vec<f64> {
    let (mut session, program) = fresh(net, &StepConfig::default(), batch, backend).unwrap();
    session.run(&program).unwrap();
    all_outputs(&session, &program, "hypergrad.")
}

fn hypergradient_in_f64(net: &Net, batch: usize) -> Vec<f64> {
    hypergradient(net, batch, Box::new(Cpu::<f64>::new(2).unwrap()))
}

fn hold(wanted: impl Fn(&str) -> bool) {
    for (name, net, batch) in whole_networks().into_iter().filter(|n| wanted(n.0)) {
        let want = hypergradient_in_f64(&net, batch);
        let stale = relative_error(&exact(name), &want);
        // Other processors sum in another order.
        assert!(
            stale < 1e-9,
            "{name}: golden/whole-networks.safetensors has an error of {stale:.1e}; write it anew"
        );
        let single: [(&str, Box<dyn Backend>); 3] = [
            ("f32 on the CPU", Box::new(Cpu::<f32>::new(2).unwrap())),
            ("f32, sums rounded one way", Box::new(Rounded::with_sums(Precision::F32, other_sum::<1>, 2))),
            (
                "f32, sums rounded another way",
                Box::new(Rounded::with_sums(Precision::F32, other_sum::<2>, 2)),
            ),
        ];
        for (way, backend) in single {
            let error = relative_error(&hypergradient(&net, batch, backend), &want);
            println!("{name}, batch {batch}, {way}: relative error {error:.1e}");
            assert!(error <= cost(name, Precision::F32), "{name} in {way}: an error of {error:.3e}");
        }
        let ways: [(&str, Precision, Rounding); 3] = [
            ("tf32", Precision::Tf32, to_tf32),
            // What a library may do that does not convert factors.
            ("tf32, matrix products of cut factors", Precision::Tf32, cut_to_tf32),
            ("bf16", Precision::Bf16, to_tf32),
        ];
        for (way, precision, products) in ways {
            let rounded = Rounded::with_products(precision, products, 2);
            let error = relative_error(&hypergradient(&net, batch, Box::new(rounded)), &want);
            println!("{name}, batch {batch}, {way}: relative error {error:.1e}");
            assert!(error <= cost(name, precision), "{name} in {way}: an error of {error:.3e}");
            assert!(error > 1e-4, "{name} in {way}: nothing was rounded");
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

fn tensor(bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(Dtype::F64, vec![bytes.len() / 8], bytes).unwrap()
}

/// `cargo test --release --test precisions -- --ignored --exact write_the_exact_hypergradients`
#[test]
#[ignore = "writes golden/whole-networks.safetensors, in minutes"]
fn write_the_exact_hypergradients() {
    let of = |(name, net, batch): (_, Net, _)| -> (&str, Vec<u8>) {
        (name, hypergradient_in_f64(&net, batch).iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let all: Vec<_> = whole_networks().into_iter().map(of).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/whole-networks.safetensors");
    safetensors::serialize_to_file(
        all.iter().map(|(name, bytes)| (*name, tensor(bytes))),
        None,
        path.as_ref(),
    )
    .unwrap();
}
