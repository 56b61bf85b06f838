//! Our convolutions on a GPU, shape by shape: every convolution of ResNet-32, WRN-28-10 and LeNet
//! at batch 100, in its three roles and three precisions. One line of JSON each, which
//! `peers/cudnn_convolutions.py` reads and sets cuDNN's time beside.
//!
//! Times are of the kernels alone, several in one graph between two events on the device, as
//! cuDNN's are taken; the median of several such. Data are random, and images are activations, as
//! in a network: in bf16 they are stored so. `wgmma`: whether wide ones may go through Hopper's
//! warpgroups; METATAPE_NO_WGMMA=1 times the others in their place.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use metatape::backend::cuda::driver::Driver;
use metatape::backend::cuda::{Cuda, Gpu, Precision};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Form, Geometry, Kind, Role, Shape, Tape};
use metatape::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::json;

const BATCH: usize = 100;
const RUNS: usize = 7;

/// Side of the image, channels in and out, side of the filter, stride.
const SHAPES: [(&str, [usize; 5]); 18] = [
    ("resnet32", [32, 3, 16, 3, 1]),
    ("resnet32", [32, 16, 16, 3, 1]),
    ("resnet32", [32, 16, 32, 3, 2]),
    ("resnet32", [16, 32, 32, 3, 1]),
    ("resnet32", [16, 32, 64, 3, 2]),
    ("resnet32", [8, 64, 64, 3, 1]),
    ("wrn28-10", [32, 3, 16, 3, 1]),
    ("wrn28-10", [32, 16, 160, 3, 1]),
    ("wrn28-10", [32, 16, 160, 1, 1]),
    ("wrn28-10", [32, 160, 160, 3, 1]),
    ("wrn28-10", [32, 160, 320, 3, 2]),
    ("wrn28-10", [32, 160, 320, 1, 2]),
    ("wrn28-10", [16, 320, 320, 3, 1]),
    ("wrn28-10", [16, 320, 640, 3, 2]),
    ("wrn28-10", [16, 320, 640, 1, 2]),
    ("wrn28-10", [8, 640, 640, 3, 1]),
    ("lenet", [28, 1, 32, 5, 1]),
    ("lenet", [14, 32, 64, 5, 1]),
];

fn main() {
    // What `cargo bench` and `cargo test` pass is of no interest.
    if let Err(error) = run() {
        eprintln!("cuda_convolutions: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let gpu = Gpu::new(0)?;
        let wgmma = gpu.wgmma() && precision == Precision::Bf16;
        let mut session = Session::new(Box::new(Cuda::new(Box::new(gpu), precision, false)));
        for (net, shape) in SHAPES {
            for role in [Role::C, Role::A, Role::B] {
                let ms = milliseconds(&mut session, shape, role)?;
                let [side, ci, co, kernel, stride] = shape;
                let out = (side + 2 * (kernel / 2) - kernel) / stride + 1;
                let gflop = 2.0 * (BATCH * out * out * kernel * kernel * ci * co) as f64 / 1e9;
                let line = json!({
                    "net": net, "n": BATCH, "side": side, "ci": ci, "co": co, "kernel": kernel, "stride": stride,
                    "role": match role { Role::C => "forward", Role::A => "data gradient", Role::B => "weight gradient" },
                    "precision": precision.name(), "wgmma": wgmma, "ms": ms, "tflops": gflop / ms,
                });
                println!("{line}");
            }
        }
    }
    Ok(())
}

fn milliseconds(
    session: &mut Session,
    [side, ci, co, kernel, stride]: [usize; 5],
    role: Role,
) -> Result<f64> {
    let geometry = Geometry { stride, pad: kernel / 2, groups: 1 };
    let out = (side + 2 * geometry.pad - kernel) / stride + 1;
    let (a, b, c): (Shape, Shape, Shape) =
        ([BATCH, side, side, ci].into(), [kernel, kernel, ci, co].into(), [BATCH, out, out, co].into());
    let mut tape = Tape::new();
    let mut factor = |role| {
        let (name, shape) = match role {
            Role::A => ("a", &a),
            Role::B => ("b", &b),
            Role::C => ("c", &c),
        };
        let input = tape.input(name, Kind::Float, shape.clone())?;
        // An image comes from other work, not from outside.
        if role == Role::B { Ok(input) } else { tape.relu(input) }
    };
    let [first, second] = role.others();
    let factors: [_; 2] = [factor(first)?, factor(second)?];
    let of = match role {
        Role::A => &a,
        Role::B => &b,
        Role::C => &c,
    };
    let product = tape.contract(Form::Conv(geometry), role, factors, Some(of))?;
    let total = tape.sum_all(product)?;
    tape.output("total", total).unwrap();
    let program = session.compile(&tape, Options::default())?;
    let mut rng = Pcg64::seed_from_u64(1);
    for input in program.inputs() {
        let values: Vec<f64> = (0..input.shape.count()).map(|_| rng.random_range(-1.0..1.0)).collect();
        session.feed(&program, &input.name, Values::Float(&values))?;
    }
    session.run(&program)?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let all = session.profile(&program)?;
        times.push(all.iter().filter(|k| k.0.starts_with("conv")).map(|k| k.1 * 1e3).sum::<f64>());
    }
    times.sort_by(f64::total_cmp);
    let median = times[RUNS / 2];
    if median > 0.0 { Ok(median) } else { Err(Error::Program("the program has no convolution".into())) }
}
