//! What instructions cost at least, whatever the machine: bytes through memory, floating-point
//! operations.

use std::iter::Sum;

use crate::program::{Instr, Kernel, Plan, Tensor};

/// Work of an instruction, or of several.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Work {
    /// Bytes read from memory.
    pub read: u64,
    /// Bytes written to memory.
    pub written: u64,
    /// Multiplications and additions of contractions (2 per multiply-add); what else is computed is
    /// not counted.
    pub flops: u64,
}

impl Work {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.read + self.written
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(all: I) -> Work {
        all.fold(Work::default(), |a, b| Work {
            read: a.read + b.read,
            written: a.written + b.written,
            flops: a.flops + b.flops,
        })
    }
}

impl Instr {
    /// The instruction's work where a tensor's entries take `width` bytes each: every tensor is
    /// read once and written once, and a contraction that adds to its output reads that, too. A
    /// machine's workspace (partial sums, factors in another width) is its own.
    pub fn work(&self, width: &dyn Fn(&Tensor) -> usize) -> Work {
        let bytes = |tensor: &Tensor, entries: usize| (entries * width(tensor)) as u64;
        let mut read = 0;
        for (i, arg) in self.args.iter().enumerate().filter(|(i, arg)| !self.args[..*i].contains(arg)) {
            read += bytes(arg, self.entries_read(i));
        }
        if matches!(self.kernel, Kernel::Contract { accumulate: true, .. }) {
            read += self.outs.iter().map(|out| bytes(out, out.len)).sum::<u64>();
        }
        Work { read, written: self.outs.iter().map(|out| bytes(out, out.len)).sum(), flops: self.flops() }
    }

    /// Entries of argument number `arg` that are read: all, but where only some are picked.
    fn entries_read(&self, arg: usize) -> usize {
        let len = self.args[arg].len;
        match &self.kernel {
            Kernel::Gather(..) if arg == 0 => self.outs[0].len,
            Kernel::Subsample(how, [n, h, w, c]) | Kernel::Embed(how, [n, h, w, c]) => {
                n * h.div_ceil(how.stride) * w.div_ceil(how.stride) * c
            }
            Kernel::Contract { .. } | Kernel::Group(_) | Kernel::Sum(_) | Kernel::Select(..) => len,
            Kernel::Unselect(..) | Kernel::Unrow(_) | Kernel::Stack | Kernel::Moments(_) => len,
            Kernel::Softmax(_) | Kernel::CrossEntropy | Kernel::Residual => len,
            Kernel::WeightedResidual | Kernel::Correct | Kernel::Gather(..) | Kernel::Copy => len,
        }
    }
}

impl Plan {
    /// The work of one run: see [`Instr::work`].
    pub fn work(&self, width: &dyn Fn(&Tensor) -> usize) -> Work {
        self.instrs.iter().map(|i| i.work(width)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Dims, Place};
    use crate::tape::{Form, GatherSpec, Kind, Role, Scalar, Strided};

    fn tensor(at: usize, len: usize, kind: Kind) -> Tensor {
        Tensor { place: Place::Arena(at), len, kind, activation: false }
    }

    fn work(kernel: Kernel, args: &[Tensor], out: Tensor) -> Work {
        let width = |t: &Tensor| if t.kind == Kind::Byte { 1 } else { 4 };
        Instr { kernel, args: args.to_vec(), outs: vec![out] }.work(&width)
    }

    #[test]
    fn a_product_reads_its_factors_and_what_it_is_added_to() {
        let product = |accumulate| Kernel::Contract {
            form: Form::Gemm,
            out: Role::C,
            dims: Dims::Gemm { m: 2, n: 3, k: 5 },
            accumulate,
        };
        let [a, b, c] = [(0, 10), (16, 15), (32, 6)].map(|(at, len)| tensor(at, len, Kind::Float));
        assert_eq!(work(product(false), &[a, b], c), Work { read: 100, written: 24, flops: 60 });
        assert_eq!(work(product(true), &[a, b], c), Work { read: 124, written: 24, flops: 60 });
        // A tensor that is both factors is read once.
        assert_eq!(work(product(false), &[a, a], c).read, 40);
    }

    #[test]
    fn what_is_not_picked_is_not_read() {
        let spec = GatherSpec { mean: vec![Scalar(0.5)], std: vec![Scalar(0.3)], pad: 0 };
        let (images, picks) = (tensor(0, 1000 * 16, Kind::Byte), tensor(0, 4 * 7, Kind::Int));
        let gathered =
            work(Kernel::Gather(spec, [4, 4, 1]), &[images, picks], tensor(0, 7 * 16, Kind::Float));
        assert_eq!(gathered, Work { read: 7 * 16 + 4 * 4 * 7, written: 4 * 7 * 16, flops: 0 });
        // Every second pixel of 5×5, with two channels of zeros before and one after.
        let how = Strided { stride: 2, before: 2, after: 1 };
        let (long, short) = (tensor(0, 2 * 25 * 4, Kind::Float), tensor(256, 2 * 9 * 7, Kind::Float));
        let read = 4 * 2 * 9 * 4;
        assert_eq!(work(Kernel::Subsample(how, [2, 5, 5, 4]), &[long], short).read, read);
        assert_eq!(work(Kernel::Embed(how, [2, 5, 5, 4]), &[short], long).read, read);
    }
}
