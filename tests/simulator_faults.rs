//! The simulator reports what would be undefined, or a matter of luck, on a card.

mod common;

use common::simulator::Simulator;
use metatape::backend::cuda::driver::{Command, Driver, Source};

const BLOCK: usize = 128;
const BLOCKS: usize = 2;

fn faults() -> Source {
    Source { name: "faults.cu".into(), text: include_str!("simulator/faults.cu").into() }
}

/// Runs one mode of the kernel; what the simulator says to it.
fn run(mode: u32, seed: u64) -> Result<(), String> {
    let mut simulator = Simulator::new(seed);
    let bytes = 4 * BLOCK * BLOCKS;
    let (x, y) = (simulator.allocate(bytes).unwrap(), simulator.allocate(bytes).unwrap());
    let function = simulator.function(&faults(), "fault").unwrap();
    let mut params = [x.to_le_bytes(), y.to_le_bytes()].concat();
    params.extend([mode.to_le_bytes(), [0; 4]].concat());
    let (block, shared) = (BLOCK as u32, 4 * BLOCK as u32);
    let launch = Command::Launch { function, grid: [BLOCKS as u32, 1, 1], block, shared, params };
    simulator.run(&launch).map_err(|e| e.to_string())
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn what_is_right_passes() {
    for mode in 0..4 {
        for seed in 0..5 {
            run(mode, seed).unwrap_or_else(|e| panic!("mode {mode}: {e}"));
        }
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn what_is_wrong_is_reported() {
    let faults: [(u32, &[&str]); 24] = [
        // Whether the other thread has written by then is chance: both are mistakes.
        (10, &["race in shared memory", "uninitialised shared memory"]),
        (11, &["race in shared memory"]),
        (12, &["uninitialised shared memory"]),
        (13, &["out of bounds of shared memory"]),
        (14, &["waits at faults.cu"]),
        (15, &["waits at common.cuh"]),
        (16, &["out of bounds"]),
        (17, &["race in device memory"]),
        (18, &["race in device memory"]),
        (19, &["race in device memory"]),
        (20, &["not aligned"]),
        (21, &["not waited for"]),
        (22, &["not rounded to tf32"]),
        (23, &["no device memory"]),
        (24, &["no fence.proxy.async"]),
        // Whether another thread has written by then is chance, again.
        (25, &["no fence.proxy.async", "uninitialised shared memory", "race in shared memory"]),
        (26, &["race in shared memory", "no fence.proxy.async", "written while a product"]),
        (27, &["does not begin where its swizzle does"]),
        (28, &["start different products"]),
        (29, &["no wgmma.fence"]),
        (30, &["by 96 of its 128 threads"]),
        (31, &["were touched"]),
        (32, &["written while a product"]),
        (33, &["never waited for"]),
    ];
    for (mode, texts) in faults {
        for seed in 0..5 {
            let said = run(mode, seed).expect_err("a fault");
            assert!(texts.iter().any(|t| said.contains(t)), "mode {mode}: {said}");
        }
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn a_parameter_struct_of_another_size_is_reported() {
    let mut simulator = Simulator::new(0);
    let function = simulator.function(&faults(), "fault").unwrap();
    let launch = Command::Launch { function, grid: [1; 3], block: 32, shared: 0, params: vec![0; 16] };
    let said = simulator.run(&launch).unwrap_err().to_string();
    assert!(said.contains("24 bytes here and 16 on the host"), "{said}");
}
