use std::fmt;
use std::str::FromStr;

use rand::seq::SliceRandom;

use crate::data::{self, Dataset, Labelled, Noise, TrainSet};
use crate::error::{Error, Result};
use crate::seed::{Stream, rng};
use crate::words::counted;

/// One change to the published method.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Variant {
    /// Clean balanced meta set of the full size, the published order, the exact hypergradient.
    #[default]
    Published,
    /// No weights at all.
    Uniform,
    /// The meta set has so many images: clean and balanced.
    Clean(usize),
    /// The same images with labels that are as noisy as the training set's.
    Noisy(usize),
    /// As many clean images, in a long tail: the first class has [`IMBALANCE`] times as many as the
    /// last.
    Imbalanced(usize),
    /// Meta batches are ordinary batches of the biased training set.
    TrainBatch,
    /// w is updated for real, then θ at the updated w; no step is done again.
    TwoSteps,
    /// θ takes a step in every so many of w's; between them, w moves with the weights of the θ that
    /// there is.
    Every(usize),
    /// So many virtual steps, each on a batch of its own, and the hypergradient through all of
    /// them.
    Unroll(usize),
    /// The hypergradient by a central difference of the losses along the meta gradient.
    FiniteDifference,
}

/// Images of the full meta set, where a configuration does not say.
pub const META_SIZE: usize = 1000;

/// The size of the full meta set that suits a data set: as for a run with noise, but so that also a
/// long tail of so many images takes no more than half of the smallest class.
pub fn default_meta_size(dataset: &Dataset) -> usize {
    let classes = dataset.classes();
    let smallest = dataset.train.class_counts(classes).into_iter().min().unwrap_or(0);
    let most = data::default_meta_size(dataset, Noise::None, None) / classes;
    let sizes = (1..=most).rev().map(|each| each * classes);
    sizes.into_iter().find(|size| Pool::per_class(classes, *size) <= smallest / 2).unwrap_or(classes)
}

/// The imbalance factor of imbalanced meta sets.
pub const IMBALANCE: f64 = 10.0;

impl Variant {
    /// Whether it is about the meta set (the first question), or about the three steps (the
    /// second).
    pub fn about_meta_set(self) -> bool {
        use Variant::{Clean, Imbalanced, Noisy, TrainBatch};
        matches!(self, Clean(_) | Noisy(_) | Imbalanced(_) | TrainBatch)
    }

    /// Images of its meta set, where its name says so.
    pub fn images(self) -> Option<usize> {
        match self {
            Variant::Clean(n) | Variant::Noisy(n) | Variant::Imbalanced(n) => Some(n),
            _ => None,
        }
    }

    /// What it changes, for people.
    pub fn meaning(self) -> String {
        match self {
            Variant::Published => "clean balanced meta set, three steps, exact".into(),
            Variant::Uniform => "no weights".into(),
            Variant::Clean(n) => format!("meta set of {}, clean and balanced", counted(n, "image")),
            Variant::Noisy(n) => format!("the same {} with noisy labels", counted(n, "image")),
            Variant::Imbalanced(n) => format!("{} in a long tail of {IMBALANCE}", counted(n, "clean image")),
            Variant::TrainBatch => "training batches as meta batches".into(),
            Variant::TwoSteps => "w first, then θ at the new w; no redo".into(),
            Variant::Every(k) => format!("θ steps once in {} of w", counted(k, "step")),
            Variant::Unroll(k) => format!("{} to look ahead", counted(k, "virtual step")),
            Variant::FiniteDifference => "hypergradient by finite differences".into(),
        }
    }

    /// What a study compares where nobody says: all sizes up to that of the full meta set; noisy
    /// labels only where there is noise.
    pub fn default_list(meta_size: usize, noise: Noise) -> Vec<Variant> {
        let sizes: Vec<usize> = [10, 100, 1000].into_iter().filter(|n| *n <= meta_size).collect();
        let mut list = vec![Variant::Published, Variant::Uniform];
        list.extend(sizes.iter().filter(|n| **n < meta_size).map(|n| Variant::Clean(*n)));
        if noise != Noise::None {
            list.extend(sizes.iter().map(|n| Variant::Noisy(*n)));
        }
        list.extend(sizes.iter().map(|n| Variant::Imbalanced(*n)));
        list.extend([Variant::TrainBatch, Variant::TwoSteps, Variant::Every(5), Variant::Every(20)]);
        list.extend([2, 4, 8].map(Variant::Unroll));
        list.push(Variant::FiniteDifference);
        list
    }

    /// The meta set that the variant draws from.
    ///
    /// # Errors
    /// As [`Noise::corrupt`].
    pub fn meta_set(self, pool: &Pool, train: &TrainSet, noise: Noise) -> Result<Labelled> {
        match self {
            Variant::Clean(n) => Ok(pool.take(&pool.balanced(n))),
            Variant::Noisy(n) => pool.noisy(n, noise),
            Variant::Imbalanced(n) => Ok(pool.take(&pool.long_tail(n))),
            Variant::TrainBatch => {
                Ok(Labelled { indices: train.indices.clone(), labels: train.labels.clone() })
            }
            _ => Ok(pool.take(&pool.balanced(pool.meta_size))),
        }
    }
}

/// Clean images set apart, of which all meta sets are made, so that all variants of a seed train on
/// the same images. Smaller sets are parts of larger ones.
pub struct Pool {
    /// By class, in an order of the seed's.
    members: Vec<Vec<u32>>,
    meta_size: usize,
    seed: u64,
}

impl Pool {
    /// How many images must be set apart of each class.
    pub fn per_class(classes: usize, meta_size: usize) -> usize {
        let tail = long_tail_shares(classes, meta_size);
        meta_size.div_ceil(classes).max(tail.into_iter().max().unwrap_or(0))
    }

    /// From the meta set of a split with [`Pool::per_class`] images of each class.
    pub fn new(apart: &Labelled, classes: usize, meta_size: usize, seed: u64) -> Pool {
        let mut members = vec![Vec::new(); classes];
        for (index, label) in apart.indices.iter().zip(&apart.labels) {
            members[*label as usize].push(*index);
        }
        for (class, images) in members.iter_mut().enumerate() {
            // Beyond the counters that splitting uses.
            images.shuffle(&mut rng(seed, Stream::MetaSplit, (1 << 32) + class as u64));
        }
        Pool { members, meta_size, seed }
    }

    /// n images over the classes as evenly as may be.
    fn balanced(&self, n: usize) -> Vec<usize> {
        let classes = self.members.len();
        (0..classes).map(|class| n / classes + usize::from(class < n % classes)).collect()
    }

    fn long_tail(&self, n: usize) -> Vec<usize> {
        long_tail_shares(self.members.len(), n)
    }

    /// The first so many of each class.
    fn take(&self, counts: &[usize]) -> Labelled {
        let mut chosen: Vec<(u32, i32)> = Vec::new();
        for (class, (images, count)) in self.members.iter().zip(counts).enumerate() {
            chosen.extend(images.iter().take(*count).map(|i| (*i, class as i32)));
        }
        chosen.sort_unstable();
        let (indices, labels) = chosen.into_iter().unzip();
        Labelled { indices, labels }
    }

    /// The balanced set of n with noisy labels: the full set's labels are spoilt once, so that
    /// smaller sets are parts of it.
    fn noisy(&self, n: usize, noise: Noise) -> Result<Labelled> {
        let (full, mut part) = (self.take(&self.balanced(self.meta_size)), self.take(&self.balanced(n)));
        let spoilt = noise.corrupt(&full.labels, self.members.len(), self.seed)?.labels;
        for (index, label) in part.indices.iter().zip(&mut part.labels) {
            if let Ok(at) = full.indices.binary_search(index) {
                *label = spoilt[at];
            }
        }
        Ok(part)
    }
}

/// n images in a long tail of factor [`IMBALANCE`], class 0 the largest; what rounding down leaves
/// over goes to the largest remainders.
fn long_tail_shares(classes: usize, n: usize) -> Vec<usize> {
    let last = classes.saturating_sub(1).max(1) as f64;
    let weights: Vec<f64> = (0..classes).map(|c| IMBALANCE.powf(-(c as f64) / last)).collect();
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|w| w / total * n as f64).collect();
    let mut counts: Vec<usize> = shares.iter().map(|s| s.floor() as usize).collect();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|a, b| shares[*b].fract().total_cmp(&shares[*a].fract()));
    let left = n - counts.iter().sum::<usize>();
    order.into_iter().take(left).for_each(|class| counts[class] += 1);
    counts
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Variant::Published => f.pad("published"),
            Variant::Uniform => f.pad("uniform"),
            Variant::Clean(n) => f.pad(&format!("clean-{n}")),
            Variant::Noisy(n) => f.pad(&format!("noisy-{n}")),
            Variant::Imbalanced(n) => f.pad(&format!("imbalanced-{n}")),
            Variant::TrainBatch => f.pad("train-batch"),
            Variant::TwoSteps => f.pad("two-steps"),
            Variant::Every(k) => f.pad(&format!("every-{k}")),
            Variant::Unroll(k) => f.pad(&format!("unroll-{k}")),
            Variant::FiniteDifference => f.pad("finite-difference"),
        }
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Variant> {
        use Variant::*;
        let number = name.rsplit('-').next().and_then(|digits| digits.parse().ok()).filter(|n| *n > 0);
        let numbered = number.map(|n| [Clean(n), Noisy(n), Imbalanced(n), Every(n), Unroll(n)]);
        let plain = [Published, Uniform, TrainBatch, TwoSteps, FiniteDifference];
        let mut all = plain.into_iter().chain(numbered.into_iter().flatten());
        all.find(|variant| variant.to_string() == name).ok_or_else(|| {
            Error::Usage(format!(
                "there is no variant `{name}`; choose from published, uniform, clean-N, noisy-N, imbalanced-N (N images), \
                 train-batch, two-steps, every-K and unroll-K (K steps), finite-difference"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::data::{DatasetKind, SplitConfig, load, split};

    #[test]
    fn names_are_read_as_they_are_written() {
        for variant in Variant::default_list(1000, Noise::Uniform(0.6)) {
            assert_eq!(variant.to_string().parse::<Variant>().unwrap(), variant);
        }
        for wrong in
            ["clean", "clean-", "clean-0", "clean-+5", "clean-05", "noisy-x", "every--1", "Published", ""]
        {
            assert!(wrong.parse::<Variant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_tails_have_their_size_and_factor() {
        for (classes, n) in [(10, 10), (10, 100), (10, 1000), (3, 7), (100, 1000)] {
            let counts = long_tail_shares(classes, n);
            assert_eq!(counts.iter().sum::<usize>(), n, "{classes} {n}");
            assert!(counts.is_sorted_by(|a, b| a + 1 >= *b), "{counts:?}");
        }
        let counts = long_tail_shares(10, 1000);
        // 1000 · 10^{−c/9} / Σ by hand: 244.6, 189.4, … 24.5
        assert_eq!((counts[0], counts[1], counts[9]), (245, 189, 24));
    }

    #[test]
    fn meta_sets_are_what_they_are_called() {
        let data = load(DatasetKind::FashionMnistMini, None).unwrap();
        let noise = Noise::Flip2(0.4);
        let meta_size = 10 * Pool::per_class(10, 1000);
        let split = split(
            &data,
            &SplitConfig {
                noise,
                imbalance: None,
                meta_source: crate::data::MetaSource::Split,
                meta_size,
                seed: 3,
            },
        )
        .unwrap();
        let pool = Pool::new(&split.meta, 10, 1000, 3);
        let of = |variant: Variant| variant.meta_set(&pool, &split.train, noise).unwrap();
        let train: HashSet<u32> = split.train.indices.iter().copied().collect();
        let set = |meta: &Labelled| meta.indices.iter().copied().collect::<HashSet<u32>>();
        let count = |meta: &Labelled, class| meta.labels.iter().filter(|l| **l == class).count();
        let right = |meta: &Labelled| {
            meta.indices
                .iter()
                .zip(&meta.labels)
                .filter(|(i, l)| data.train.labels[**i as usize] == **l)
                .count()
        };
        let full = of(Variant::Published);
        assert_eq!(full, of(Variant::Clean(1000)));
        for n in [10, 100, 1000] {
            let (clean, noisy, tail) =
                (of(Variant::Clean(n)), of(Variant::Noisy(n)), of(Variant::Imbalanced(n)));
            for meta in [&clean, &noisy, &tail] {
                assert_eq!((meta.indices.len(), set(meta).len(), meta.labels.len()), (n, n, n));
                assert!(meta.indices.is_sorted() && train.is_disjoint(&set(meta)));
            }
            assert_eq!((right(&clean), right(&tail)), (n, n));
            assert!((0..10).all(|class| count(&clean, class) == n / 10));
            assert!(count(&tail, 0) > count(&tail, 9));
            assert_eq!(noisy.indices, clean.indices);
            assert!(set(&clean).is_subset(&set(&full)), "smaller sets are parts of larger ones");
        }
        let wrong = 1000 - right(&of(Variant::Noisy(1000)));
        assert!((350..450).contains(&wrong), "{wrong} of 1000 labels are wrong");
        assert_eq!(of(Variant::TrainBatch).labels, split.train.labels);
    }
}
