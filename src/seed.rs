//! Every random choice has its own generator, made from the run's seed, the purpose and a counter.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// What random numbers are drawn for. One purpose never disturbs another: more noise does not move
/// the meta set, a resumed run draws step 1000's augmentation without drawing those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Stream {
    /// Which training images become the meta set (counter: the class).
    MetaSplit = 1,
    /// Which images a long tail keeps (counter: the class).
    LongTail = 2,
    /// Which wrong classes `flip` and `flip2` turn each class into.
    NoiseTargets = 3,
    /// Which samples get a wrong label.
    Noise = 4,
    /// Order of the training batches (counter: the epoch).
    TrainBatches = 5,
    /// Order of the meta batches (counter: the pass).
    MetaBatches = 6,
    /// Crops and flips of training batches (counter: the step).
    TrainAugmentation = 7,
    /// Crops and flips of meta batches (counter: the step).
    MetaAugmentation = 8,
    /// Initial parameters of the classifier (counter: the parameter's place).
    Classifier = 9,
    /// Initial parameters of the weight net (counter: the parameter's place).
    WeightNet = 10,
    /// Initial parameters of Co-teaching's second classifier (counter: the parameter's place).
    SecondClassifier = 11,
    /// What dropout drops (counter: the step).
    Dropout = 12,
    /// Which training samples are set apart for the test (counter: the class).
    TestSplit = 13,
}

/// The generator for `stream` and `counter` of a run with `seed`.
///
/// `seed_from_u64` (which spreads 64 bits over PCG's whole state, so that neighbouring seeds are
/// unrelated) is applied three times: to the seed, to the first output exclusive-or the stream's
/// number, and to the first output of that exclusive-or the counter.
pub fn rng(seed: u64, stream: Stream, counter: u64) -> Pcg64 {
    let spread = |word| Pcg64::seed_from_u64(word).next_u64();
    Pcg64::seed_from_u64(spread(spread(seed) ^ stream as u64) ^ counter)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::RngExt;
    use rand::seq::SliceRandom;

    use super::*;

    #[test]
    fn neighbouring_seeds_streams_and_counters_differ() {
        let streams = [Stream::MetaSplit, Stream::LongTail, Stream::TrainBatches, Stream::MetaAugmentation];
        let mut seen = HashSet::new();
        for seed in 0..20 {
            for stream in streams {
                for counter in 0..20 {
                    assert!(seen.insert(rng(seed, stream, counter).next_u64()));
                }
            }
        }
        assert_eq!(rng(3, Stream::Noise, 4), rng(3, Stream::Noise, 4));
    }

    /// A change here, as another version of a random number library may bring, changes every run:
    /// it must be wanted.
    #[test]
    fn values_stay() {
        let mut rng = rng(1, Stream::TrainBatches, 2);
        let mut order: Vec<u32> = (0..8).collect();
        order.shuffle(&mut rng);
        let range: Vec<i32> = (0..8).map(|_| rng.random_range(-4..=4)).collect();
        let seen = (order, range, rng.next_u64());
        assert_eq!(
            seen,
            (vec![4, 0, 7, 1, 6, 3, 5, 2], vec![1, 1, 2, 1, 2, 3, -3, 1], 15_852_901_554_355_156_922)
        );
    }
}
