//! Criterion benches of the CPU kernels; "elements" are floating-point operations, so Gelem/s reads
//! as GFLOP/s.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metatape::backend::cpu::conv::{Output, data_gradient, forward, weight_gradient, workspace_len};
use metatape::backend::cpu::gemm::gemm;
use metatape::backend::cpu::norm;
use metatape::backend::cpu::team::Team;
use metatape::program::ConvShape;
use metatape::tape::Role;

fn convolutions(bench: &mut Criterion) {
    let shape = |hw, ci, k, co, stride, pad| ConvShape {
        n: 100,
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
    for (name, s) in [
        ("resnet-3-16-at-32", shape(32, 3, 3, 16, 1, 1)),
        ("resnet-16-16-at-32", shape(32, 16, 3, 16, 1, 1)),
        ("resnet-16-32-at-32-by-2", shape(32, 16, 3, 32, 2, 1)),
        ("resnet-32-32-at-16", shape(16, 32, 3, 32, 1, 1)),
        ("resnet-64-64-at-8", shape(8, 64, 3, 64, 1, 1)),
        ("lenet-1-32-at-28", shape(28, 1, 5, 32, 1, 2)),
        ("lenet-32-64-at-14", shape(14, 32, 5, 64, 1, 2)),
    ] {
        let (mut x, mut w, mut y) =
            (vec![0.5f32; s.x_len()], vec![0.25f32; s.w_len()], vec![0.5f32; s.y_len()]);
        let mut group = bench.benchmark_group("conv");
        group.throughput(Throughput::Elements(s.flops() as u64));
        let mut ws = vec![0f32; workspace_len::<f32>(&s, Role::C)];
        group.bench_function(BenchmarkId::new("forward", name), |b| {
            b.iter(|| forward(&s, black_box(&x), &w, Output::new(&mut y, false), &mut ws));
        });
        let mut ws = vec![0f32; workspace_len::<f32>(&s, Role::A)];
        group.bench_function(BenchmarkId::new("data-gradient", name), |b| {
            b.iter(|| data_gradient(&s, &w, black_box(&y), Output::new(&mut x, false), &mut ws));
        });
        let mut ws = vec![0f32; workspace_len::<f32>(&s, Role::B)];
        group.bench_function(BenchmarkId::new("weight-gradient", name), |b| {
            b.iter(|| weight_gradient(&s, black_box(&x), &y, &mut w, false, &mut ws));
        });
    }
}

fn products(bench: &mut Criterion) {
    for (ta, tb, m, k, n) in [
        (false, false, 100, 784, 256),
        (true, false, 784, 100, 256),
        (false, false, 100, 3136, 256),
        (false, false, 2048, 2048, 2048),
    ] {
        let (a, b, mut c) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
        let mut group = bench.benchmark_group("gemm");
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        let name = format!("{m}x{k}x{n}{}", if ta { "-T" } else { "" });
        group.bench_function(name, |bench| {
            bench.iter(|| gemm(ta, tb, m, n, k, black_box(&a), &b, &mut c, false))
        });
    }
}

fn batch_norm(bench: &mut Criterion) {
    let (rows, c) = (102_400, 16);
    let x = vec![0.5f32; rows * c];
    let (mut moments, mut ws) = (vec![0f32; 2 * c], vec![0f32; norm::workspace_len(rows, c)]);
    let mut group = bench.benchmark_group("norm");
    group.throughput(Throughput::Bytes((4 * rows * c) as u64));
    group.bench_function("moments", |b| b.iter(|| norm::moments(black_box(&x), &mut moments, &mut ws)));
}

/// The thread that calls and a second one, for each bench.
fn all(bench: &mut Criterion) {
    let mut team = Team::new(2).expect("two threads");
    team.lead(|| {
        convolutions(bench);
        products(bench);
        batch_norm(bench);
    });
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = all
}
criterion_main!(kernels);
