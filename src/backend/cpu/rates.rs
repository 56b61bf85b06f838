//! What this machine reaches when it does nothing else: the measure that a step's time is held
//! against.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use super::isa::{Isa, Kernel, Simd};
use super::real::Real;
use super::team::Team;
use super::{conv, par, zeros};
use crate::error::Result;
use crate::program::{Dims, Instr, Kernel as Contraction};

/// How long either is measured, in runs of about a millisecond; the fastest counts, since whatever
/// else goes on only makes one slower.
const LONG: Duration = Duration::from_millis(100);
/// As few runs as that are enough of a large memory.
const RUNS: usize = 3;
/// Sums that wait for none of each other: a multiply-add's result is there after 4 cycles, and 2
/// begin in each, so 8 keep the units busy; with two factors 12 fit into AVX2's 16 registers.
const CHAINS: usize = 12;
/// Multiply-adds of each chain in a run: about a millisecond.
const ROUNDS: usize = 1 << 18;

/// Floating-point operations a second of a team whose members multiply and add vectors in registers
/// (a multiply-add counts 2): the peak of the instruction set that the kernels run with.
pub fn multiply_add_rate<T: Real>(team: &mut Team) -> f64 {
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => rate_of::<T::Avx512>(Isa::Avx512, team),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => rate_of::<T::Avx2>(Isa::Avx2, team),
        Isa::Portable => rate_of::<T::Portable>(Isa::Portable, team),
    }
}

fn rate_of<S: Simd>(isa: Isa, team: &mut Team) -> f64 {
    let threads = team.threads();
    let seconds = fastest(|| {
        team.lead(|| par::for_each(threads, &|_| isa.run(Chains::<S>(PhantomData))));
    });
    (threads * CHAINS * ROUNDS * S::LANES * 2) as f64 / seconds
}

/// Floating-point operations of an instruction's contractions as they are done here, in numbers of
/// so many bytes: Winograd's convolutions take fewer than [`Instr::flops`].
pub fn flops(instr: &Instr, number: usize) -> u64 {
    let Contraction::Contract { out, dims: Dims::Conv(shape), .. } = &instr.kernel else {
        return instr.flops();
    };
    conv::flops(shape, *out, number) * (instr.args.len() / 2) as u64
}

/// Bytes a second, those read and those written, of a team whose members copy, each a part of its
/// own, half of a memory of this many bytes to the other half. A memory that fits into caches is
/// copied at their rate, as a program of that size runs in them.
///
/// # Errors
/// [`crate::Error::Device`] if there is no room for the memory.
pub fn copy_rate(team: &mut Team, bytes: usize) -> Result<f64> {
    let threads = team.threads();
    // Whole pages for everyone.
    let part = (bytes / 2).div_ceil(threads).next_multiple_of(4096);
    let (from, mut to) = (zeros(part * threads, 1u8)?, zeros(part * threads, 2u8)?);
    let seconds = fastest(|| {
        team.lead(|| {
            par::for_each_chunk(&mut to, part, &|i, to| to.copy_from_slice(&from[i * part..][..to.len()]));
        });
        black_box(&mut to);
    });
    Ok((2 * to.len()) as f64 / seconds)
}

/// Seconds of the fastest of several runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    // This one wakes the team and touches the memory.
    run();
    let (begin, mut least) = (Instant::now(), f64::INFINITY);
    for runs in 0.. {
        if runs >= RUNS && begin.elapsed() > LONG {
            break;
        }
        let start = Instant::now();
        run();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

struct Chains<S>(PhantomData<S>);

impl<S: Simd> Kernel for Chains<S> {
    #[inline(always)]
    fn run(self) {
        let factor = black_box(<S::Elem as Real>::from_f64(0.5));
        // SAFETY: called by `Isa::run` for the instruction set of `S`.
        unsafe {
            let (factor, one) = (S::splat(factor), S::splat(<S::Elem as Real>::ONE));
            let mut sums = [one; CHAINS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    // 1 + sum/2, which stays below 2: no number ever slows a unit down.
                    *sum = one.add_product(*sum, factor);
                }
            }
            black_box(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one machine, so only the order of size is sure; a loop that was optimised away would be
    /// far beyond it.
    #[test]
    fn rates_are_those_of_some_machine() {
        let mut team = Team::new(1).unwrap();
        let (single, double) = (multiply_add_rate::<f32>(&mut team), multiply_add_rate::<f64>(&mut team));
        for rate in [single, double] {
            assert!((1e8..1e12).contains(&rate), "{rate:e} operations a second on one thread");
        }
        let copy = copy_rate(&mut team, 8 << 20).unwrap();
        assert!((1e8..1e12).contains(&copy), "{copy:e} bytes a second on one thread");
    }
}
