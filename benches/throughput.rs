//! A table of GFLOP/s, quickly: `cargo bench --bench throughput -- [threads] [filter]`.
//!
//! The best of many short runs, so that other work on the machine disturbs little.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use metatape::backend::cpu::conv::{Output, data_gradient, forward, weight_gradient, workspace_len};
use metatape::backend::cpu::gemm::gemm;
use metatape::backend::cpu::pool::{PoolShape, select, unselect};
use metatape::backend::cpu::team::Team;
use metatape::backend::cpu::{norm, reduce};
use metatape::program::ConvShape;
use metatape::tape::Role;

/// Least seconds of a call, over about half a second of calls.
fn best(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || start.elapsed() < Duration::from_millis(500) {
        let now = Instant::now();
        f();
        best = best.min(now.elapsed());
        runs += 1;
    }
    best.as_secs_f64()
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| !a.starts_with("--")).peekable();
    let threads = args.next_if(|a| a.parse::<usize>().is_ok()).map_or(2, |a| a.parse().unwrap());
    let filter = args.next().unwrap_or_default();
    let mut team = Team::new(threads).unwrap();
    println!("GFLOP/s of f32 on {threads} thread(s): forward, data gradient, weight gradient");
    team.lead(|| {
        for (name, s) in shapes() {
            if name.contains(&filter) {
                convolution(name, &s);
            }
        }
        for (ta, tb, m, k, n) in [
            (false, false, 100, 784, 256),
            (true, false, 784, 100, 256),
            (false, true, 100, 256, 784),
            (false, false, 200, 784, 256),
            (false, false, 100, 3136, 256),
            (true, false, 3136, 100, 256),
            (false, true, 100, 256, 3136),
            (false, false, 100, 256, 10),
            (false, false, 2048, 2048, 2048),
            (true, false, 2048, 2048, 2048),
            (false, true, 2048, 2048, 2048),
        ] {
            let name =
                format!("gemm {m}x{k}x{n} {}{}", if ta { "T" } else { "N" }, if tb { "T" } else { "N" });
            if name.contains(&filter) {
                let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
                let t = best(|| gemm(ta, tb, m, n, k, &a, &b, &mut c, false));
                println!("{name:28} {:7.1}", 2.0 * (m * n * k) as f64 / t / 1e9);
            }
        }
        if "pool".contains(&filter) {
            for (hw, c) in [(28, 32), (14, 64)] {
                pooling(PoolShape { n: 100, h: hw, w: hw, c, k: 2, stride: 2 });
            }
        }
        if "norm".contains(&filter) {
            for c in [16, 32, 64] {
                normalisation(102_400 * 16 / c / (c / 16), c);
            }
        }
    });
}

fn shapes() -> Vec<(&'static str, ConvShape)> {
    let shape = |n, hw, ci, k, co, stride, pad| ConvShape {
        n,
        h: hw,
        w: hw,
        ci,
        kh: k,
        kw: k,
        co,
        stride,
        pad,
        groups: 1,
    };
    vec![
        ("resnet 3->16 @32", shape(100, 32, 3, 3, 16, 1, 1)),
        ("resnet 16->16 @32", shape(100, 32, 16, 3, 16, 1, 1)),
        ("resnet 16->32 @32 /2", shape(100, 32, 16, 3, 32, 2, 1)),
        ("resnet 32->32 @16", shape(100, 16, 32, 3, 32, 1, 1)),
        ("resnet 32->64 @16 /2", shape(100, 16, 32, 3, 64, 2, 1)),
        ("resnet 64->64 @8", shape(100, 8, 64, 3, 64, 1, 1)),
        ("lenet 1->32 5x5 @28", shape(100, 28, 1, 5, 32, 1, 2)),
        ("lenet 32->64 5x5 @14", shape(100, 14, 32, 5, 64, 1, 2)),
        ("wrn 160->160 @32 n=10", shape(10, 32, 160, 3, 160, 1, 1)),
        ("wrn 320->320 @16 n=20", shape(20, 16, 320, 3, 320, 1, 1)),
        ("wrn 640->640 @8 n=40", shape(40, 8, 640, 3, 640, 1, 1)),
        ("wrn 160->320 1x1 @32 /2", shape(20, 32, 160, 1, 320, 2, 0)),
        ("64->64 @32 depthwise", ConvShape { groups: 64, ..shape(100, 32, 64, 3, 64, 1, 1) }),
        ("64->64 @32 in 8 groups", ConvShape { groups: 8, ..shape(100, 32, 64, 3, 64, 1, 1) }),
        ("64->64 @32", shape(100, 32, 64, 3, 64, 1, 1)),
    ]
}

fn convolution(name: &str, s: &ConvShape) {
    let (mut x, mut w, mut y) = (vec![0.5f32; s.x_len()], vec![0.25f32; s.w_len()], vec![0f32; s.y_len()]);
    let ws = |role| vec![0f32; workspace_len::<f32>(s, role)];
    let (mut ws_a, mut ws_b, mut ws_c) = (ws(Role::A), ws(Role::B), ws(Role::C));
    let c = best(|| forward(s, &x, &w, Output::new(&mut y, false), &mut ws_c));
    let a = best(|| data_gradient(s, &w, &y, Output::new(&mut x, false), &mut ws_a));
    x.fill(0.5);
    let b = best(|| weight_gradient(s, &x, &y, &mut w, false, &mut ws_b));
    let rate = |t: f64| s.flops() as f64 / t / 1e9;
    println!(
        "{name:28} {:7.1} {:7.1} {:7.1}   workspace {:.1} {:.1} {:.1} MB",
        rate(c),
        rate(a),
        rate(b),
        ws_c.len() as f64 * 4e-6,
        ws_a.len() as f64 * 4e-6,
        ws_b.len() as f64 * 4e-6
    );
}

/// Batch norm's statistics and a bias gradient, in GB/s of reads.
fn normalisation(rows: usize, c: usize) {
    let len = rows * c;
    let x = vec![0.5f32; len];
    let mut moments = vec![0f32; 2 * c];
    let mut ws = vec![0f32; norm::workspace_len(rows, c)];
    let rate = |t: f64| (len * 4) as f64 / t / 1e9;
    let m = rate(best(|| norm::moments(&x, &mut moments, &mut ws)));
    let mut ws = vec![0f32; reduce::workspace_len(1, rows, c)];
    let s = rate(best(|| reduce::sum(1, rows, c, &x, &mut moments[..c], &mut ws)));
    println!("[{rows}, {c}] GB/s: moments {m:.1}, sum {s:.1}");
}

/// Max-pooling and its transpose, in milliseconds.
fn pooling(s: PoolShape) {
    let (x, mut y) = (vec![0.5f32; s.x_len()], vec![0f32; s.y_len()]);
    let mut out = x.clone();
    let forward = best(|| select(&s, &x, &x, &mut y));
    let back = best(|| unselect(&s, &y, &x, &mut out));
    println!("max-pool {}x{}x{} ms: select {:.3}, unselect {:.3}", s.h, s.w, s.c, forward * 1e3, back * 1e3);
}
