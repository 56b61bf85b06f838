//! Matrix products by cuBLAS.

use std::ffi::c_void;

use cudarc::cublas::{result as blas_result, sys as blas};
use cudarc::driver::sys;

use super::driver::{Address, Gemm, Width};
use crate::error::{Error, Result};

/// What cuBLAS works in: on Hopper it asks for 32 MiB, earlier cards need less.
pub(super) const BLAS_WORKSPACE: usize = 32 << 20;

/// cuBLAS on one stream.
pub(super) struct Blas(blas::cublasHandle_t);

fn failed(what: &str) -> impl FnOnce(blas_result::CublasError) -> Error {
    move |error| Error::Device(format!("cuBLAS cannot {what}: {:?}", error.0))
}

impl Blas {
    /// With a workspace of [`BLAS_WORKSPACE`] bytes: it would allocate one otherwise, and another
    /// for every graph. Stream and workspace stay as long as this.
    pub fn new(stream: sys::CUstream, workspace: Address) -> Result<Blas> {
        let blas = Blas(blas_result::create_handle().map_err(failed("start"))?);
        // SAFETY: the handle was made above; the caller gives a stream, and a workspace of this
        // size.
        unsafe {
            blas_result::set_stream(blas.0, stream.cast()).map_err(failed("take a stream"))?;
            blas::cublasSetWorkspace_v2(blas.0, workspace as *mut c_void, BLAS_WORKSPACE)
                .result()
                .map_err(failed("take a workspace"))?;
            // Sums are f32, also where a product in bf16 is cut into parts.
            let mode = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            blas::cublasSetMathMode(blas.0, mode).result().map_err(failed("sum in f32"))?;
        }
        Ok(blas)
    }

    /// Row-major products, to a library that counts in columns: what it sees are the transposes, so
    /// it is asked for `cᵀ [n, m] = op(b)ᵀ · op(a)ᵀ`.
    pub fn gemm(&self, g: &Gemm) -> Result<()> {
        let size = |n: usize| {
            i32::try_from(n).map_err(|_| {
                Error::Device(format!("a matrix product of {}×{}×{} is too large for cuBLAS", g.m, g.n, g.k))
            })
        };
        let (m, n, k) = (size(g.m)?, size(g.n)?, size(g.k)?);
        let data = |width| match width {
            Width::F32 => blas::cudaDataType::CUDA_R_32F,
            Width::Bf16 => blas::cudaDataType::CUDA_R_16BF,
        };
        let order = |transposed| match transposed {
            true => blas::cublasOperation_t::CUBLAS_OP_T,
            false => blas::cublasOperation_t::CUBLAS_OP_N,
        };
        let compute = match g.tf32 && g.factors == Width::F32 {
            true => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (one, beta) = (1.0_f32, if g.accumulate { 1.0_f32 } else { 0.0 });
        // SAFETY: the addresses are allocations of this driver that hold the matrices; the scalars
        // are read before the call returns.
        unsafe {
            blas_result::gemm_ex(
                self.0,
                order(g.b_transposed),
                order(g.a_transposed),
                n,
                m,
                k,
                (&raw const one).cast(),
                g.b as *const c_void,
                data(g.factors),
                if g.b_transposed { k } else { n },
                g.a as *const c_void,
                data(g.factors),
                if g.a_transposed { m } else { k },
                (&raw const beta).cast(),
                g.c as *mut c_void,
                data(g.product),
                n,
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(failed(&format!("multiply {m}×{k} by {k}×{n}")))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by this, destroyed once. What cuBLAS says of it changes nothing any more.
        let _ = unsafe { blas_result::destroy_handle(self.0) };
    }
}
