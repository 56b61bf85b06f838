//! The CPU kernels allocate nothing: scratch comes in from outside. (Very large matrix products do,
//! inside the `gemm` crate.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use metatape::backend::cpu::conv::{Output, data_gradient, forward, weight_gradient, workspace_len};
use metatape::backend::cpu::pool::{PoolShape, select, unselect};
use metatape::backend::cpu::team::Team;
use metatape::backend::cpu::{norm, reduce, xent};
use metatape::program::ConvShape;
use metatape::tape::Role;

struct Counting;
static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { System.dealloc(at, layout) }
    }
}
#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn kernels_allocate_nothing() {
    let s = ConvShape { n: 64, h: 8, w: 8, ci: 16, kh: 3, kw: 3, co: 16, stride: 2, pad: 1, groups: 1 };
    let (mut x, mut w, mut y) = (vec![0.5f32; s.x_len()], vec![0.5f32; s.w_len()], vec![0.5f32; s.y_len()]);
    let roles = [Role::A, Role::B, Role::C];
    let mut ws = vec![0f32; roles.iter().map(|r| workspace_len::<f32>(&s, *r)).max().unwrap()];
    let (rows, c) = (64 * 64, 16);
    let (v, mut out, mut moments) = (vec![1f32; s.x_len()], vec![0f32; s.x_len()], vec![0f32; 2 * c]);
    let mut norm_ws = vec![0f32; norm::workspace_len(rows, c).max(reduce::workspace_len(1, rows, c))];
    let p = PoolShape { n: 64, h: 8, w: 8, c, k: 2, stride: 2 };
    let mut pooled = vec![0f32; p.y_len()];
    let labels = vec![3i32; 64];
    let mut loss = vec![0f32; 64];
    let mut step = || {
        forward(&s, &x, &w, Output::new(&mut y, false), &mut ws);
        data_gradient(&s, &w, &y, Output::new(&mut x, true), &mut ws);
        weight_gradient(&s, &x, &y, &mut w, false, &mut ws);
        norm::moments(&x, &mut moments, &mut norm_ws);
        reduce::sum(1, rows, c, &x, &mut moments[..c], &mut norm_ws);
        select(&p, &v, &x, &mut pooled);
        unselect(&p, &pooled, &x, &mut out);
        xent::cross_entropy(&v, &labels, &mut loss);
    };
    let mut team = Team::new(2).unwrap();
    let counts = team.lead(|| {
        step();
        [(); 3].map(|()| {
            let before = COUNT.load(Relaxed);
            step();
            COUNT.load(Relaxed) - before
        })
    });
    // The test harness has threads of its own, which may allocate now and then; a kernel would
    // every time.
    assert!(counts.contains(&0), "allocations in three rounds: {counts:?}");
}
