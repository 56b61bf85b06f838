//! What the command asks of CUDA, in a build without the feature `cuda`: there is no GPU, and
//! whoever names one is told why. The items are those of `cuda.rs`.
#![allow(dead_code, reason = "what only a GPU makes is never made")]

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use metatape::program::{Backend, Plan, Tensor};
use metatape::{Error, Result};

/// There is none.
pub enum Gpu {}

/// As in `cuda.rs`.
pub type SharedGpu = Arc<Mutex<Gpu>>;

/// As the library's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    F32,
    Tf32,
    Bf16,
}

/// As the library's.
pub enum Command {
    Launch { grid: [u32; 3] },
    Gemm(()),
    Clear {},
    Copy {},
}

/// As the library's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub name: Cow<'static, str>,
    pub text: Cow<'static, str>,
}

/// As the library's.
pub struct Compiled {
    pub file: String,
    pub capability: i32,
    pub bytes: usize,
}

fn absent<T>() -> Result<T> {
    Err(Error::Device(
        "this metatape was built without CUDA; build it with the feature `cuda`, or take --device cpu".into(),
    ))
}

impl Gpu {
    pub fn new(_: usize) -> Result<Gpu> {
        absent()
    }
}

pub fn describe_gpus() -> Vec<String> {
    Vec::new()
}

pub fn compile_kernels(_: &Path, _: &[i32], _: &[Source]) -> Result<(Vec<Compiled>, String)> {
    absent()
}

pub fn commands(_: &Plan, _: Precision) -> Result<Vec<Vec<Command>>> {
    absent()
}

pub fn written(_: &Plan, _: Precision) -> Result<Vec<Source>> {
    absent()
}

pub fn entry_bytes(_: Precision, _: &Tensor) -> usize {
    unreachable!("there are no commands to count the bytes of")
}

pub fn backend(gpu: SharedGpu, _: Precision, _: bool) -> Box<dyn Backend> {
    match *gpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {}
}
