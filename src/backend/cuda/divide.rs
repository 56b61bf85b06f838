//! Division by a number that the host knows, as a multiplication on the device.

use bytemuck::{Pod, Zeroable};

/// `n / divisor = (umulhi(n, magic) + n) >> shift` for `n < 2³¹`; twin of `FastDiv` in
/// `kernels/common.cuh`. Source: Granlund and Montgomery, "Division by invariant integers using
/// multiplication", 1994.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct FastDiv {
    divisor: u32,
    magic: u32,
    shift: u32,
}

impl FastDiv {
    /// Division by `divisor`, 1 to 2³¹.
    pub fn new(divisor: usize) -> FastDiv {
        assert!((1..=1 << 31).contains(&divisor), "division by {divisor} on the device");
        let shift = divisor.next_power_of_two().trailing_zeros();
        let magic = ((1u64 << 32) * ((1u64 << shift) - divisor as u64)) / divisor as u64 + 1;
        FastDiv { divisor: divisor as u32, magic: magic as u32, shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_as_the_processor_does() {
        for divisor in
            (1..200).chain([255, 256, 257, 1023, 25_600, 65_535, 65_536, 1 << 20, (1 << 31) - 1, 1 << 31])
        {
            let d = FastDiv::new(divisor);
            let near = (0..64u64).flat_map(|i| [i * divisor as u64, i * divisor as u64 + divisor as u64 - 1]);
            for n in near.chain([(1 << 31) - 1, (1 << 31) - 2, 1 << 30, 12_345_678]).filter(|n| *n < 1 << 31)
            {
                let high = (n * u64::from(d.magic)) >> 32;
                // 32-bit arithmetic, as on the device.
                let quotient = (high as u32).wrapping_add(n as u32) >> d.shift;
                assert_eq!(u64::from(quotient), n / divisor as u64, "{n} / {divisor}");
            }
        }
    }
}
