use std::sync::Mutex;

use super::*;
use crate::backend::cpu::tests::{dot, noise, on_any_threads};

/// Calls `f(x index, w index, y index)` for every product of the trilinear form.
fn each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    for n in 0..s.n {
        for p in 0..s.oh() {
            for q in 0..s.ow() {
                for a in 0..s.kh {
                    for b in 0..s.kw {
                        let (h, w) = (p * s.stride + a, q * s.stride + b);
                        if h < s.pad || w < s.pad || h >= s.pad + s.h || w >= s.pad + s.w {
                            continue;
                        }
                        let x0 = ((n * s.h + h - s.pad) * s.w + w - s.pad) * s.ci;
                        let y0 = ((n * s.oh() + p) * s.ow() + q) * s.co;
                        let (own, outs) = (s.ci / s.groups, s.co / s.groups);
                        for i in 0..own {
                            let w0 = ((a * s.kw + b) * own + i) * s.co;
                            for o in 0..s.co {
                                f(x0 + o / outs * own + i, w0 + o, y0 + o);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shapes() -> Vec<ConvShape> {
    let grouped = |n, h, w, ci, kh, kw, co, stride, pad, groups| ConvShape {
        n,
        h,
        w,
        ci,
        kh,
        kw,
        co,
        stride,
        pad,
        groups,
    };
    let shape = |n, h, w, ci, kh, kw, co, stride, pad| grouped(n, h, w, ci, kh, kw, co, stride, pad, 1);
    vec![
        // Depthwise: a vector of channels, less, and more; two and three outputs of a channel.
        grouped(2, 8, 8, 16, 3, 3, 16, 1, 1, 16),
        grouped(1, 7, 5, 3, 3, 3, 3, 2, 1, 3),
        grouped(2, 9, 8, 37, 5, 5, 37, 1, 2, 37),
        grouped(3, 6, 7, 20, 3, 2, 40, 2, 1, 20),
        grouped(1, 5, 5, 7, 1, 1, 21, 1, 0, 7),
        // 2, 3, 4, 5, 8 and more channels of a group, of its outputs.
        grouped(2, 7, 7, 10, 3, 3, 15, 1, 1, 5),
        grouped(1, 9, 8, 9, 3, 3, 6, 2, 1, 3),
        grouped(2, 6, 5, 16, 1, 1, 20, 2, 0, 4),
        grouped(1, 8, 8, 15, 5, 5, 3, 3, 2, 3),
        grouped(3, 5, 6, 24, 3, 3, 15, 1, 0, 3),
        grouped(1, 6, 6, 34, 3, 3, 38, 1, 1, 2),
        // Groups wide enough for vectors of their own.
        grouped(2, 6, 7, 40, 3, 3, 80, 1, 1, 2),
        grouped(1, 7, 6, 60, 3, 2, 30, 2, 1, 3),
        grouped(3, 5, 5, 18, 1, 1, 70, 1, 0, 2),
        grouped(40, 4, 4, 12, 3, 3, 8, 1, 1, 4),
        grouped(1, 33, 70, 4, 3, 3, 8, 2, 1, 2),
        grouped(1, 1, 1, 20, 3, 3, 4, 2, 1, 4),
        grouped(1, 5, 5, 4, 3, 3, 2, 4, 0, 2),
        shape(2, 8, 8, 16, 3, 3, 16, 1, 1),
        shape(3, 7, 7, 10, 3, 3, 17, 1, 1),
        shape(1, 7, 9, 3, 3, 3, 16, 1, 1),
        shape(2, 9, 8, 17, 3, 3, 10, 2, 1),
        shape(2, 8, 8, 16, 1, 1, 32, 2, 0),
        shape(2, 7, 7, 33, 1, 1, 5, 2, 0),
        shape(1, 12, 12, 1, 5, 5, 32, 1, 2),
        shape(2, 14, 14, 32, 5, 5, 64, 1, 2),
        shape(1, 28, 28, 1, 5, 5, 6, 1, 0),
        shape(1, 11, 10, 20, 7, 7, 3, 3, 3),
        shape(2, 5, 6, 3, 2, 4, 40, 2, 1),
        shape(3, 4, 4, 48, 3, 3, 48, 1, 1),
        shape(2, 6, 5, 2, 3, 2, 9, 3, 2),
        shape(1, 3, 3, 18, 3, 3, 19, 1, 4),
        shape(40, 4, 4, 16, 3, 3, 16, 1, 1),
        shape(1, 33, 70, 4, 3, 3, 16, 2, 1),
        shape(2, 1, 1, 5, 1, 1, 70, 1, 0),
        shape(1, 5, 5, 2, 3, 3, 2, 4, 0),
        shape(2, 1, 2, 3, 1, 1, 4, 2, 0),
        shape(1, 1, 1, 20, 3, 3, 4, 2, 1),
        shape(70, 6, 6, 3, 3, 3, 8, 1, 1),
        // Winograd: tiles that stick out, any padding, one block of channels and several, sums over
        // tiles in one part and in several, channels cut for several tasks.
        shape(5, 9, 11, 16, 3, 3, 32, 1, 0),
        shape(3, 7, 13, 48, 3, 3, 16, 1, 2),
        shape(6, 8, 7, 96, 3, 3, 32, 1, 1),
        shape(20, 4, 4, 160, 3, 3, 176, 1, 1),
        shape(16, 16, 15, 16, 3, 3, 16, 1, 1),
    ]
}

/// Runs what writes `out`. The pieces that are given to its tail are whole rows, all of `out` once,
/// in the order of their numbers.
fn in_pieces<T: Real>(
    out: &mut [T],
    row: usize,
    pieces: usize,
    accumulate: bool,
    run: impl FnOnce(Output<T>),
) {
    let (seen, len) = (Mutex::new(Vec::new()), out.len());
    let tail = |i: usize, entries: Range<usize>| seen.lock().unwrap().push((i, entries));
    let given: Option<&Tail> = if pieces > 0 { Some(&tail) } else { None };
    run(Output { to: out, accumulate, tail: given });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|(i, _)| *i);
    assert_eq!(seen.len(), pieces);
    let mut next = 0;
    for (n, (i, entries)) in seen.into_iter().enumerate() {
        assert_eq!((i, entries.start, entries.start % row), (n, next, 0), "{pieces} pieces of rows of {row}");
        next = entries.end;
    }
    assert!(pieces == 0 || next == len, "{pieces} pieces end at {next} of {len}");
}

/// All three roles of `s` on `isa`: (y, dx, dw), each added to what was there if `accumulate`.
fn all_roles<T: Real>(isa: Isa, s: &ConvShape, accumulate: bool) -> [Vec<T>; 3] {
    let (x, w, dy) = (noise::<T>(s.x_len(), 1), noise::<T>(s.w_len(), 2), noise::<T>(s.y_len(), 3));
    let mut out = [noise(s.y_len(), 4), noise(s.x_len(), 5), noise(s.w_len(), 6)];
    // Scratch starts as NaN: a kernel that reads what it did not write shows it.
    let ws = |role| vec![T::from_f64(f64::NAN); workspace_len::<T>(s, role)];
    let [y, dx, _] = &mut out;
    in_pieces(y, s.ow() * s.co, pieces::<T>(s, Role::C), accumulate, |y| {
        forward_on(isa, s, &x, &w, y, &mut ws(Role::C));
    });
    in_pieces(dx, s.w * s.ci, pieces::<T>(s, Role::A), accumulate, |dx| {
        data_gradient_on(isa, s, &w, &dy, dx, &mut ws(Role::A));
    });
    weight_gradient_on(isa, s, &x, &dy, &mut out[2], accumulate, &mut ws(Role::B));
    out
}

fn against_naive<T: Real>(tolerance: f64) {
    for s in shapes() {
        let (x, w, dy) = (noise::<T>(s.x_len(), 1), noise::<T>(s.w_len(), 2), noise::<T>(s.y_len(), 3));
        for accumulate in [false, true] {
            let keep = if accumulate { 1.0 } else { 0.0 };
            let start = |n, seed| noise::<T>(n, seed).iter().map(|v| keep * v.to_f64()).collect::<Vec<_>>();
            let mut want = [start(s.y_len(), 4), start(s.x_len(), 5), start(s.w_len(), 6)];
            each_product(&s, |xi, wi, yi| {
                want[0][yi] += x[xi].to_f64() * w[wi].to_f64();
                want[1][xi] += w[wi].to_f64() * dy[yi].to_f64();
                want[2][wi] += x[xi].to_f64() * dy[yi].to_f64();
            });
            for isa in Isa::available() {
                let got = all_roles::<T>(isa, &s, accumulate);
                for ((got, want), role) in got.iter().zip(&want).zip(["forward", "data", "weight"]) {
                    let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                    for (i, (g, w)) in got.iter().zip(want).enumerate() {
                        let error = (g.to_f64() - w).abs() / scale;
                        assert!(error < tolerance, "{isa:?} {role} {accumulate} {s:?} [{i}]: {g} for {w}");
                    }
                }
            }
        }
    }
}

#[test]
fn operations_are_two_a_product() {
    for s in shapes().into_iter().filter(|s| s.pad == 0) {
        let mut products = 0;
        each_product(&s, |_, _, _| products += 1);
        assert_eq!(s.flops(), 2 * products, "{s:?}");
    }
}

#[test]
fn f64_is_the_sum() {
    against_naive::<f64>(1e-13);
}

#[test]
fn f32_is_the_sum() {
    against_naive::<f32>(1e-5);
}

/// Relative errors of all roles in f32 against f64, in the Euclidean norm.
fn errors_in_f32(isa: Isa, s: &ConvShape, exact: &[Vec<f64>; 3]) -> [f64; 3] {
    let got = all_roles::<f32>(isa, s, false);
    std::array::from_fn(|role| {
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, exact) in got[role].iter().zip(&exact[role]) {
            error += (f64::from(*got) - exact).powi(2);
            norm += exact.powi(2);
        }
        (error / norm).sqrt()
    })
}

/// What 36 products for 144, or for 100, cost in accuracy: two or three times the error of direct
/// sums. The gradients' 64 for 400 in 5×5: ten times.
#[test]
#[allow(clippy::print_stdout)]
fn winograd_loses_little() {
    for (n, hw, c, k) in [(20, 32, 16, 3), (20, 16, 32, 3), (20, 8, 64, 3), (8, 8, 160, 3), (20, 14, 64, 5)] {
        let (h, w, pad) = (hw, hw, k / 2);
        let s = ConvShape { n, h, w, ci: c, kh: k, kw: k, co: c, stride: 1, pad, groups: 1 };
        assert!(winograd::suits(&s, size_of::<f32>()) && !winograd::suits(&s, size_of::<f64>()));
        let exact = all_roles(Isa::best(), &s, false);
        for isa in Isa::available() {
            let errors = errors_in_f32(isa, &s, &exact);
            let [y, dx, dw] = errors;
            println!("{isa:?}, {n} images of {hw}×{hw}×{c}, {k}×{k}: y {y:.1e}, dx {dx:.1e}, dw {dw:.1e}");
            assert!(lose_little(&s, errors), "{isa:?} {s:?}: {errors:?}");
        }
    }
}

/// Of y, dx and dw.
fn lose_little(s: &ConvShape, [y, dx, dw]: [f64; 3]) -> bool {
    let gradients = if s.kh == 5 { 5e-6 } else { 2e-6 };
    y < 2e-6 && dx < gradients && dw < gradients
}

/// Counted by hand: tiles, products of each, a multiplication and an addition of each.
#[test]
fn operations_are_those_that_are_done() {
    let roles = [Role::A, Role::B, Role::C];
    for (hw, taps, tiles_and_products) in [(9, 3, [9 * 36; 3]), (8, 5, [4 * 64, 4 * 64, 16 * 36])] {
        let (pad, channels) = (taps / 2, 16 * 32);
        let s =
            ConvShape { n: 2, h: hw, w: hw, ci: 16, kh: taps, kw: taps, co: 32, stride: 1, pad, groups: 1 };
        let direct = (2 * 2 * hw * hw * taps * taps * channels) as u64;
        for (role, each) in roles.into_iter().zip(tiles_and_products) {
            assert_eq!(flops(&s, role, size_of::<f32>()), 2 * 2 * each * channels as u64, "{role:?} {s:?}");
            assert_eq!(flops(&s, role, size_of::<f64>()), direct, "{role:?} {s:?}");
        }
    }
}

#[test]
fn winograd_on_random_shapes() {
    let mut tried = [0; 2];
    for seed in 1..=60 {
        let random = noise::<f64>(6, seed);
        let below = |i: usize, n: usize| ((random[i] + 1.0) / 2.0 * n as f64) as usize;
        let taps = 3 + 2 * (seed as usize % 2);
        let s = ConvShape {
            n: 1 + below(0, 30),
            h: 1 + below(1, 20),
            w: 1 + below(2, 20),
            ci: BLOCK * (1 + below(3, 7)),
            kh: taps,
            kw: taps,
            co: BLOCK * (1 + below(4, 7)),
            stride: 1,
            pad: below(5, taps),
            groups: 1,
        };
        if !winograd::suits(&s, size_of::<f32>()) {
            continue;
        }
        tried[taps / 5] += 1;
        let exact = all_roles(Isa::best(), &s, false);
        for isa in Isa::available() {
            let errors = errors_in_f32(isa, &s, &exact);
            assert!(lose_little(&s, errors), "{isa:?} {s:?}: {errors:?}");
        }
        on_any_threads(|| all_roles::<f32>(Isa::best(), &s, true));
    }
    assert!(tried.iter().all(|n| *n > 15), "{tried:?} shapes");
}

#[test]
fn roles_are_adjoint() {
    for s in shapes() {
        let [y, dx, dw] = all_roles::<f64>(Isa::best(), &s, false);
        let (x, w, dy) = (noise(s.x_len(), 1), noise(s.w_len(), 2), noise(s.y_len(), 3));
        let form = dot(&dy, &y);
        let scale = dot(&y, &y).sqrt() * dot(&dy, &dy).sqrt();
        assert!((form - dot(&x, &dx)).abs() < 1e-12 * scale, "{s:?}: {form} {}", dot(&x, &dx));
        assert!((form - dot(&w, &dw)).abs() < 1e-12 * scale, "{s:?}: {form} {}", dot(&w, &dw));
    }
}

#[test]
fn same_bits_on_any_number_of_threads() {
    for s in shapes() {
        on_any_threads(|| all_roles::<f32>(Isa::best(), &s, true));
    }
}

#[test]
fn nothing_to_multiply_gives_zero() {
    let s = ConvShape { n: 1, h: 2, w: 2, ci: 3, kh: 5, kw: 5, co: 4, stride: 1, pad: 0, groups: 1 };
    assert_eq!((s.oh(), s.ow()), (0, 0));
    let [y, dx, dw] = all_roles::<f32>(Isa::best(), &s, false);
    assert!(y.is_empty() && dx.iter().chain(&dw).all(|v| *v == 0.0));
}
