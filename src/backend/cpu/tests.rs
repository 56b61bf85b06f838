//! Every kernel against a plain f64 loop, transposes against each other, and the same bits on any
//! number of threads.

use super::gemm::gemm;
use super::pool::{PoolShape, select, unselect};
use super::real::Real;
use super::structure::{GatherShape, SubsampleShape, embed, gather, subsample};
use super::team::Team;
use super::{Cpu, norm, reduce, run, xent};
use crate::backend::cpu::memory::Way;
use crate::program::{Backend, Instr, Kernel, Options, Place, Plan, Tensor};
use crate::tape::{Geometry, Kind, Scalar, Tape};

/// A cheap reproducible sequence in (−1, 1).
pub(super) fn noise<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            T::from_f64((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        })
        .collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Runs `f` in teams of 1, 2 and 3 threads; the results must be equal bit for bit. Returns one of
/// them.
pub(super) fn on_any_threads<R: PartialEq + Send>(f: impl Fn() -> R + Sync) -> R {
    let [one, two, three] = [1, 2, 3].map(|threads| Team::new(threads).unwrap().lead(&f));
    assert!(one == two && one == three, "the bits depend on the number of threads");
    one
}

/// Checks `got` against `want`, relative to the largest number wanted.
fn close<T: Real>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g.to_f64() - w).abs() / scale;
        assert!(error <= tolerance, "{what} [{i}]: {g} for {w}");
    }
}

fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|v| v.to_f64()).collect()
}

/// Scratch full of NaN: a kernel that reads what it did not write shows it.
fn scratch<T: Real>(n: usize) -> Vec<T> {
    vec![T::from_f64(f64::NAN); n]
}

fn products<T: Real>(tolerance: f64) {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 7, 5),
        (7, 1, 5),
        (7, 5, 1),
        (0, 3, 2),
        (3, 4, 0),
        (33, 65, 129),
        (200, 130, 90),
        (5, 20, 2100),
        (800, 790, 770),
    ] {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let (a, b, c) = (noise::<T>(m * k, 1), noise::<T>(k * n, 2), noise::<T>(m * n, 3));
            for accumulate in [false, true] {
                let mut want = if accumulate { wide(&c) } else { vec![0.0; m * n] };
                for i in 0..m {
                    for l in 0..k {
                        for j in 0..n {
                            let a = a[if ta { l * m + i } else { i * k + l }].to_f64();
                            let b = b[if tb { j * k + l } else { l * n + j }].to_f64();
                            want[i * n + j] += a * b;
                        }
                    }
                }
                let got = on_any_threads(|| {
                    let mut c = c.clone();
                    gemm(ta, tb, m, n, k, &a, &b, &mut c, accumulate);
                    c
                });
                close(&got, &want, tolerance, &format!("{m}×{k}×{n} {ta} {tb} {accumulate}"));
            }
        }
    }
}

#[test]
fn gemm_is_the_sum() {
    products::<f64>(1e-13);
    products::<f32>(1e-5);
}

#[test]
fn pooling_selects_first_maxima() {
    for (n, h, w, c, k, stride) in
        [(2, 6, 6, 3, 2, 2), (1, 7, 5, 4, 3, 2), (3, 5, 5, 17, 3, 1), (1, 8, 8, 1, 2, 3)]
    {
        let s = PoolShape { n, h, w, c, k, stride };
        // Few different values, so that there are ties.
        let x: Vec<f64> = noise::<f64>(s.x_len(), 1).iter().map(|v| (v * 3.0).round()).collect();
        let v = noise::<f64>(s.x_len(), 2);
        let mut want = Vec::new();
        for i in 0..n {
            for p in 0..s.oh() {
                for q in 0..s.ow() {
                    for ch in 0..c {
                        let at = |a: usize| ((i * h + p * stride + a / k) * w + q * stride + a % k) * c + ch;
                        let max = (0..k * k).map(|a| x[at(a)]).fold(f64::MIN, f64::max);
                        want.push(v[(0..k * k).map(at).find(|at| x[*at] == max).unwrap()]);
                    }
                }
            }
        }
        let got = on_any_threads(|| {
            let mut out = scratch(s.y_len());
            select(&s, &v, &x, &mut out);
            out
        });
        assert_eq!(got, want, "{s:?}");
        let ct = noise::<f64>(s.y_len(), 3);
        let back = on_any_threads(|| {
            let mut out = scratch(s.x_len());
            unselect(&s, &ct, &x, &mut out);
            out
        });
        assert!((dot(&ct, &got) - dot(&back, &v)).abs() < 1e-12, "{s:?}: not adjoint");
    }
}

fn moments<T: Real>(tolerance: f64) {
    for (rows, c) in
        [(1, 1), (5, 3), (100, 16), (3000, 16), (2050, 20), (700, 160), (4097, 1), (333, 32), (4000, 40)]
    {
        // A mean far from zero, as after many layers.
        let x: Vec<T> = noise::<f64>(rows * c, 1).iter().map(|v| T::from_f64(v + 3.0)).collect();
        let (mut mean, mut variance) = (vec![0.0; c], vec![0.0; c]);
        for i in 0..rows * c {
            mean[i % c] += x[i].to_f64() / rows as f64;
        }
        for i in 0..rows * c {
            variance[i % c] += (x[i].to_f64() - mean[i % c]).powi(2) / rows as f64;
        }
        let moments = on_any_threads(|| {
            let (mut moments, mut ws) = (scratch::<T>(2 * c), scratch::<T>(norm::workspace_len(rows, c)));
            norm::moments(&x, &mut moments, &mut ws);
            moments
        });
        close(&moments[..c], &mean, tolerance, "mean");
        close(&moments[c..], &variance, tolerance, "variance");
    }
}

#[test]
fn moments_are_the_formula() {
    moments::<f64>(1e-12);
    moments::<f32>(3e-7);
}

#[test]
fn moments_of_large_offsets_are_accurate() {
    let x: Vec<f32> = noise::<f64>(64 * 1000, 5).iter().map(|v| (1000.0 + v) as f32).collect();
    let (mut out, mut ws) = (vec![0f32; 2], scratch(norm::workspace_len(64_000, 1)));
    norm::moments(&x, &mut out, &mut ws);
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / 64e3;
    let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 64e3;
    close(&out[1..], &[variance], 2e-7, "variance");
}

fn cross_entropy<T: Real>(tolerance: f64) {
    for (n, k) in [(1, 2), (7, 10), (300, 10), (65, 100), (3, 1)] {
        let z: Vec<T> = noise::<f64>(n * k, 1).iter().map(|v| T::from_f64(v * 9.0)).collect();
        let y: Vec<i32> = (0..n).map(|i| (i * 7 % k) as i32).collect();
        let weight = noise::<T>(n, 2);
        let p: Vec<f64> = (0..n * k)
            .map(|i| {
                let row = &z[i / k * k..][..k];
                z[i].to_f64().exp() / row.iter().map(|v| v.to_f64().exp()).sum::<f64>()
            })
            .collect();
        // ln(1 + Σ_{j≠y} exp(z_j − z_y)) and −Σ_{j≠y} p_j keep digits that −ln p_y and p_y − 1
        // lose.
        let others = |i: usize, f: &dyn Fn(usize) -> f64| -> f64 {
            (0..k).filter(|j| *j != y[i] as usize).map(|j| f(i * k + j)).sum()
        };
        let loss: Vec<f64> = (0..n)
            .map(|i| others(i, &|at| (z[at].to_f64() - z[i * k + y[i] as usize].to_f64()).exp()).ln_1p())
            .collect();
        let residual: Vec<f64> = (0..n * k)
            .map(|at| if at % k == y[at / k] as usize { -others(at / k, &|j| p[j]) } else { p[at] })
            .collect();
        let weighted: Vec<f64> = (0..n * k).map(|i| weight[i / k].to_f64() * residual[i]).collect();
        let got = on_any_threads(|| {
            let mut out = [scratch::<T>(n), scratch(n * k), scratch(n * k), scratch(n * k)];
            xent::cross_entropy(&z, &y, &mut out[0]);
            xent::softmax(n, &z, &mut out[1]);
            xent::residual(&z, &y, &mut out[2]);
            xent::weighted_residual(&z, &y, &weight, &mut out[3]);
            out
        });
        if k > 1 {
            close(&got[0], &loss, tolerance, "loss");
            close(&got[2], &residual, tolerance, "residual");
            close(&got[3], &weighted, tolerance, "weighted residual");
        } else {
            assert!(got[0].iter().chain(&got[2]).all(|v| *v == T::ZERO), "one class: certain");
        }
        close(&got[1], &p, tolerance, "softmax");
    }
}

#[test]
fn cross_entropy_is_the_formula() {
    cross_entropy::<f64>(1e-13);
    cross_entropy::<f32>(2e-7);
}

#[test]
fn cross_entropy_of_extreme_logits() {
    let z = [1e30f32, -1e30, 0.0, /**/ 20.0, 0.0, 0.0];
    let mut loss = [0f32; 2];
    xent::cross_entropy(&z, &[1, 0], &mut loss);
    assert_eq!(loss[0], 2e30);
    // 2 e⁻²⁰, which 1 + e⁻²⁰ in f32 would round away.
    close(&loss[1..], &[(2.0 * (-20f64).exp()).ln_1p()], 1e-6, "small loss");
    let mut out = [0f32; 6];
    xent::residual(&z, &[1, 0], &mut out);
    assert_eq!(out[..3], [1.0, -1.0, 0.0]);
    close(&out[3..4], &[-2.0 * (-20f64).exp()], 1e-6, "small residual");
}

#[test]
fn sums_and_broadcasts() {
    for (pre, mid, post) in [
        (1, 1, 1),
        (3, 5, 7),
        (1, 102_400, 16),
        (1, 100, 256),
        (100, 10, 1),
        (1, 70_001, 1),
        (2, 40_000, 3),
        (5000, 3, 2),
        (2, 3, 0),
        (2, 0, 3),
    ] {
        let (x, ct) = (noise::<f64>(pre * mid * post, 1), noise::<f64>(pre * post, 2));
        let mut want = vec![0.0; pre * post];
        for i in 0..x.len() {
            want[i / (mid * post) * post + i % post] += x[i];
        }
        let (sum, back) = on_any_threads(|| {
            let (mut out, mut back) = (scratch(pre * post), scratch(x.len()));
            reduce::sum(pre, mid, post, &x, &mut out, &mut scratch(reduce::workspace_len(pre, mid, post)));
            reduce::broadcast(pre, mid, post, &ct, &mut back);
            (out, back)
        });
        close(&sum, &want, 1e-12, &format!("{pre}×{mid}×{post}"));
        for (i, v) in back.iter().enumerate() {
            assert_eq!(*v, ct[i / (mid * post) * post + i % post]);
        }
        let narrow: Vec<f32> = x.iter().map(|v| *v as f32).collect();
        let mut out = scratch::<f32>(pre * post);
        reduce::sum(pre, mid, post, &narrow, &mut out, &mut scratch(reduce::workspace_len(pre, mid, post)));
        let mut want = vec![0.0; pre * post];
        for i in 0..x.len() {
            want[i / (mid * post) * post + i % post] += f64::from(narrow[i]);
        }
        close(&out, &want, 1.2e-7, "f32");
    }
}

#[test]
fn shortcut_subsamples_and_pads_channels() {
    for (n, h, w, c, stride, before, after) in
        [(2, 8, 8, 16, 2, 8, 8), (1, 7, 5, 3, 2, 0, 1), (3, 4, 6, 2, 3, 2, 0)]
    {
        let s = SubsampleShape { n, h, w, c, stride, before, after };
        let (x, ct) = (noise::<f64>(s.x_len(), 1), noise::<f64>(s.y_len(), 2));
        let (y, back) = on_any_threads(|| {
            let (mut y, mut back) = (scratch(s.y_len()), scratch(s.x_len()));
            subsample(&s, &x, &mut y);
            embed(&s, &ct, &mut back);
            (y, back)
        });
        for (i, v) in y.iter().enumerate() {
            let (pixel, ch) = (i / s.oc(), i % s.oc());
            let (p, q) = (pixel / s.ow() % s.oh(), pixel % s.ow());
            let from = ((pixel / s.ow() / s.oh() * h + p * stride) * w + q * stride) * c;
            let inside = (before..before + c).contains(&ch);
            assert_eq!(*v, if inside { x[from + ch - before] } else { 0.0 });
        }
        assert!((dot(&y, &ct) - dot(&x, &back)).abs() < 1e-12, "{s:?}: not adjoint");
    }
}

#[test]
fn gather_crops_the_reflected_image() {
    let (h, w, c, pad) = (5, 6, 3, 2);
    let s = GatherShape { h, w, c, pad };
    let images: Vec<u8> = (0..4 * h * w * c).map(|i| (i * 37 % 251) as u8).collect();
    let samples = [[2, -2, 2, 0], [0, 2, -1, 1], [3, 0, 0, 0], [3, 0, 0, 1]];
    let (mean, std) = ([0.1, 0.2, 0.3].map(Scalar), [0.5, 0.6, 0.7].map(Scalar));
    let got = on_any_threads(|| {
        let mut x = scratch::<f64>(4 * h * w * c);
        gather(&s, &images, &samples, &mean, &std, &mut x);
        x
    });
    // numpy's reflect, as a sequence: index −1 is 1, −2 is 2, n is n − 2, …
    let reflected =
        |n: usize| -> Vec<usize> { (1..=pad).rev().chain(0..n).chain((n - 1 - pad..n - 1).rev()).collect() };
    let (rows, cols) = (reflected(h), reflected(w));
    for (i, v) in got.iter().enumerate() {
        let [index, dx, dy, flip] = samples[i / (h * w * c)];
        let (index, dx, dy) = (index as usize, (dx + pad as i32) as usize, (dy + pad as i32) as usize);
        let (row, col, ch) = (i / (w * c) % h, i / c % w, i % c);
        let col = if flip == 1 { w - 1 - col } else { col };
        let from = ((index * h + rows[row + dy]) * w + cols[col + dx]) * c + ch;
        let want = (f64::from(images[from]) / 255.0 - mean[ch].0) / std[ch].0;
        assert_eq!(*v, want, "sample {} row {row} column {col}", i / (h * w * c));
    }
    let plain = GatherShape { pad: 0, ..s };
    let mut x = scratch::<f32>(h * w * c);
    gather(&plain, &images, &[[1, 0, 0, 0]], &mean, &std, &mut x);
    assert_eq!(x[4], ((f64::from(images[h * w * c + 4]) / 255.0 - 0.2) / 0.6) as f32);
}

/// Two convolutions with batch norm and ReLU, and their gradients: statistics and the sums of batch
/// norm's gradient run inside of the convolution that they follow.
#[test]
fn what_reads_a_convolutions_output_runs_inside_of_it() {
    let mut tape = Tape::new();
    let geometry = Geometry { stride: 1, pad: 1, groups: 1 };
    let x = tape.input("x", Kind::Float, [4, 8, 8, 16]).unwrap();
    let weights = ["v", "w"].map(|name| tape.input(name, Kind::Float, [3, 3, 16, 16]).unwrap());
    let mut y = x;
    for w in weights {
        y = tape.conv(y, w, geometry).unwrap();
        y = tape.normalise(y, 1e-5).unwrap();
        y = tape.relu(y).unwrap();
    }
    let squares = tape.mul(y, y).unwrap();
    let sum = tape.sum_all(squares).unwrap();
    for (name, gradient) in ["dv", "dw"].iter().zip(tape.gradient(sum, &weights).unwrap()) {
        tape.output(name, gradient).unwrap();
    }
    let plan = Plan::new(&tape, Options::default()).unwrap();
    for threads in [1, 3] {
        let mut cpu = Cpu::<f64>::new(threads).unwrap();
        cpu.load(plan.clone(), Vec::new()).unwrap();
        let (ways, instrs) = (&cpu.programs[0].ways, &cpu.programs[0].plan.instrs);
        let inside = |way: &Way| match *way {
            Way::Around { next, .. } => {
                assert!(ways[next] == Way::Within);
                Some(instrs[next].kernel.name())
            }
            Way::Alone | Way::Within => None,
        };
        assert_eq!(ways.iter().filter_map(inside).collect::<Vec<_>>(), ["moments", "moments", "entrywise"]);
    }
    // Not where it would be written over what the convolution still reads, or over a part of its
    // output.
    let sums = plan.instrs.iter().rposition(|i| i.kernel.name() == "conv data gradient").unwrap();
    let group = (sums + 1..).find(|i| matches!(plan.instrs[*i].kernel, Kernel::Group(_))).unwrap();
    let (conv, group) = (&plan.instrs[sums], &plan.instrs[group]);
    assert!(group.may_run_within(conv));
    let written_to = |place: Place| {
        let mut moved: Instr = group.clone();
        moved.outs[0].place = place;
        moved.may_run_within(conv)
    };
    assert!(!written_to(conv.args[1].place));
    let Place::Arena(at) = conv.outs[0].place else { panic!("a gradient lies in the arena") };
    assert!(!written_to(Place::Arena(at + 16)));
    // Nor before what writes to an operand of the group.
    let found = |between: &[Instr]| {
        let instrs = [std::slice::from_ref(conv), between, std::slice::from_ref(group)].concat();
        let groups: Vec<_> = instrs.iter().map(|_| None).collect();
        run::inside::<f64>(&instrs, &groups, 0).map(|(next, _)| next)
    };
    let copy = |to: Tensor| Instr { kernel: Kernel::Copy, args: vec![conv.args[0]], outs: vec![to] };
    let other = group.args.iter().find(|arg| **arg != conv.outs[0]).unwrap();
    let unread = Tensor { place: Place::Arena(plan.arena), ..*other };
    assert_eq!((found(&[]), found(&[copy(unread)])), (Some(1), Some(2)));
    assert_eq!(found(&[copy(*other)]), None);
}

/// What is repeated from image to image does not begin anew with every piece of an image.
#[test]
fn what_is_longer_than_a_row_does_not_run_inside_of_a_convolution() {
    for (repeated, inside) in [(vec![16], true), (vec![8, 8, 16], false)] {
        let mut tape = Tape::new();
        let x = tape.input("x", Kind::Float, [4, 8, 8, 16]).unwrap();
        let w = tape.input("w", Kind::Float, [3, 3, 16, 16]).unwrap();
        let b = tape.input("b", Kind::Float, repeated).unwrap();
        let y = tape.conv(x, w, Geometry { stride: 1, pad: 1, groups: 1 }).unwrap();
        let b = tape.broadcast_to(b, [4, 8, 8, 16].into()).unwrap();
        let sum = tape.add(y, b).unwrap();
        tape.output("sum", sum).unwrap();
        let mut cpu = Cpu::<f32>::new(1).unwrap();
        cpu.load(Plan::new(&tape, Options::default()).unwrap(), Vec::new()).unwrap();
        assert_eq!(cpu.programs[0].ways.contains(&Way::Within), inside);
    }
}
