//! Instruction sets: which one this machine has (asked at run time), and the few vector operations
//! that the convolution kernels are written in.
//!
//! Code that wants an instruction set is an `#[inline(always)]` generic over [`Simd`], entered as a
//! [`Kernel`] through a small function that carries the matching `#[target_feature]`.

use super::real::Real;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit vectors, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit vectors, 16 registers, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every machine of the target has.
    Portable,
}

impl Isa {
    /// The instruction sets that this machine can run, best first.
    pub fn available() -> impl Iterator<Item = Isa> {
        [
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            Isa::Portable,
        ]
        .into_iter()
        .filter(|isa| isa.is_here())
    }

    /// The best instruction set of this machine.
    #[inline]
    pub fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if Isa::Avx512.is_here() {
                return Isa::Avx512;
            }
            if Isa::Avx2.is_here() {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Runs `kernel` compiled for this instruction set.
    ///
    /// # Panics
    /// If this machine does not have it.
    #[inline(always)]
    pub fn run(self, kernel: impl Kernel) {
        assert!(self.is_here(), "this machine has no {self:?}");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted above.
            Isa::Avx512 => unsafe { with_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asserted above.
            Isa::Avx2 => unsafe { with_avx2(kernel) },
            Isa::Portable => kernel.run(),
        }
    }

    /// Whether this machine can run it.
    #[inline]
    pub fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                !avx512_is_off()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && Isa::Avx2.is_here()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Portable => true,
        }
    }
}

/// Whether METATAPE_NO_AVX512 asks for what a machine without it would do. (The `gemm` crate, which
/// does the largest products, does not ask.)
#[cfg(target_arch = "x86_64")]
fn avx512_is_off() -> bool {
    static OFF: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *OFF.get_or_init(|| std::env::var_os("METATAPE_NO_AVX512").is_some())
}

/// Has the cache line at `at` fetched into the second-level cache, to be written to soon if WRITE.
/// Only a hint: nothing is read, any address will do.
#[inline(always)]
pub fn prefetch<T, const WRITE: bool>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, of the instruction set that every such machine has.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
        if WRITE {
            _mm_prefetch::<_MM_HINT_ET0>(at.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Code to compile for an instruction set: mark `run` (and what it calls) `#[inline(always)]`.
///
/// Not a closure, because a closure cannot be made to inline, and code that is not inlined into the
/// function with the `#[target_feature]` is compiled without it: every vector operation becomes a
/// call.
pub trait Kernel {
    /// Does the work.
    fn run(self);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
#[inline(never)]
unsafe fn with_avx512(kernel: impl Kernel) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn with_avx2(kernel: impl Kernel) {
    kernel.run();
}

/// A vector of numbers: just what a register-tiled product needs.
///
/// # Safety
/// Every method must be called on a machine that has the instruction set, and pointers must be good
/// for the lanes that are read or written (no alignment is asked for).
#[allow(clippy::missing_safety_doc, reason = "the section above covers every method")]
pub unsafe trait Simd: Copy {
    /// The number in a lane.
    type Elem: Real;
    /// Lanes.
    const LANES: usize;
    /// Rows of a register tile that is one vector wide, and of one that is two vectors wide, so
    /// that the tile, the vectors of the other factor and a broadcast fit in the register file.
    const TILE_ROWS: [usize; 2];

    /// Runs `kernel` compiled for this instruction set, as a function of its own.
    unsafe fn enter(kernel: impl Kernel);
    /// All lanes `value`.
    unsafe fn splat(value: Self::Elem) -> Self;
    /// Reads all lanes.
    unsafe fn load(from: *const Self::Elem) -> Self;
    /// Writes all lanes.
    unsafe fn store(self, to: *mut Self::Elem);
    /// Reads the first `n` lanes; the others are zero.
    unsafe fn load_first(from: *const Self::Elem, n: usize) -> Self;
    /// Writes the first `n` lanes.
    unsafe fn store_first(self, to: *mut Self::Elem, n: usize);
    /// `self + a * b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    unsafe fn plus(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn minus(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn times(self, other: Self) -> Self;
}

/// An array that LLVM keeps in whatever vector registers the target has.
#[derive(Clone, Copy)]
pub struct Portable<T, const N: usize>([T; N]);

// SAFETY: plain reads and writes of exactly the lanes named.
unsafe impl<T: Real, const N: usize> Simd for Portable<T, N> {
    type Elem = T;
    const LANES: usize = N;
    const TILE_ROWS: [usize; 2] = [4, 4];

    #[inline(never)]
    unsafe fn enter(kernel: impl Kernel) {
        kernel.run();
    }
    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Portable([value; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller vouches for N elements; `read_unaligned` asks for no alignment.
        Portable(unsafe { from.cast::<[T; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[T; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const T, n: usize) -> Self {
        let mut lanes = [T::ZERO; N];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, for which the caller vouches.
            *lane = unsafe { *from.add(i) };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut T, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: i < n, for which the caller vouches.
            unsafe { *to.add(i) = *lane };
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // Not `mul_add`: without hardware FMA that is a library call per lane.
        Portable(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Simd};
    use std::arch::x86_64::*;

    /// Thin wrappers: an element, how many lanes there are, rows of tiles, and the instructions.
    macro_rules! simd {
        ($vector:ty, $elem:ty, $lanes:literal, $rows:expr, $enter:path, [$splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident],
         |$from:ident, $n:ident| $load_first:expr, |$to:ident, $all:ident| $store_first:expr) => {
            // SAFETY: masks name exactly the lanes that are touched.
            unsafe impl Simd for $vector {
                type Elem = $elem;
                const LANES: usize = $lanes;
                const TILE_ROWS: [usize; 2] = $rows;
                #[inline(always)]
                unsafe fn enter(kernel: impl Kernel) {
                    unsafe { $enter(kernel) }
                }
                #[inline(always)]
                unsafe fn splat(value: $elem) -> Self {
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $elem) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $elem) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn load_first($from: *const $elem, $n: usize) -> Self {
                    unsafe { $load_first }
                }
                #[inline(always)]
                unsafe fn store_first(self, $to: *mut $elem, $n: usize) {
                    let $all = self;
                    unsafe { $store_first }
                }
                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    unsafe { $fma(a, b, self) }
                }
                #[inline(always)]
                unsafe fn plus(self, other: Self) -> Self {
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn minus(self, other: Self) -> Self {
                    unsafe { $sub(self, other) }
                }
                #[inline(always)]
                unsafe fn times(self, other: Self) -> Self {
                    unsafe { $mul(self, other) }
                }
            }
        };
    }

    simd!(
        __m512,
        f32,
        16,
        [16, 8],
        super::with_avx512,
        [
            _mm512_set1_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_fmadd_ps,
            _mm512_add_ps,
            _mm512_sub_ps,
            _mm512_mul_ps
        ],
        |from, n| _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, from),
        |to, all| _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as u16, all)
    );
    simd!(
        __m512d,
        f64,
        8,
        [16, 8],
        super::with_avx512,
        [
            _mm512_set1_pd,
            _mm512_loadu_pd,
            _mm512_storeu_pd,
            _mm512_fmadd_pd,
            _mm512_add_pd,
            _mm512_sub_pd,
            _mm512_mul_pd
        ],
        |from, n| _mm512_maskz_loadu_pd(((1u32 << n) - 1) as u8, from),
        |to, all| _mm512_mask_storeu_pd(to, ((1u32 << n) - 1) as u8, all)
    );

    /// A lane is touched where its mask's top bit is set: `FIRST[8 - n..]` starts with n such
    /// lanes.
    static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    static FIRST_WIDE: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

    simd!(
        __m256,
        f32,
        8,
        [8, 6],
        super::with_avx2,
        [
            _mm256_set1_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_fmadd_ps,
            _mm256_add_ps,
            _mm256_sub_ps,
            _mm256_mul_ps
        ],
        |from, n| _mm256_maskload_ps(from, _mm256_loadu_si256(FIRST.as_ptr().add(8 - n).cast())),
        |to, all| _mm256_maskstore_ps(to, _mm256_loadu_si256(FIRST.as_ptr().add(8 - n).cast()), all)
    );
    simd!(
        __m256d,
        f64,
        4,
        [8, 6],
        super::with_avx2,
        [
            _mm256_set1_pd,
            _mm256_loadu_pd,
            _mm256_storeu_pd,
            _mm256_fmadd_pd,
            _mm256_add_pd,
            _mm256_sub_pd,
            _mm256_mul_pd
        ],
        |from, n| _mm256_maskload_pd(from, _mm256_loadu_si256(FIRST_WIDE.as_ptr().add(4 - n).cast())),
        |to, all| _mm256_maskstore_pd(to, _mm256_loadu_si256(FIRST_WIDE.as_ptr().add(4 - n).cast()), all)
    );
}
