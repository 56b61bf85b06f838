//! The clean, balanced meta set and the biased training set, both from the training images, never
//! overlapping.

use rand::seq::SliceRandom;

use super::dataset::Part;
use super::{Dataset, Noise};
use crate::seed::{Stream, rng};
use crate::words::{counted, exact};
use crate::{Error, Result};

/// Where the meta set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaSource {
    /// Training samples are set apart, with their labels as they are given.
    Split,
    /// The data have it apart: their folder `meta`, or another folder.
    Dir,
    /// The training set itself: meta batches are drawn from it, as many of each class, as work on
    /// long tails does. Nothing is set apart.
    TrainBalanced,
}

impl MetaSource {
    const ALL: [(MetaSource, &str); 3] = [
        (MetaSource::Split, "split"),
        (MetaSource::Dir, "dir"),
        (MetaSource::TrainBalanced, "train-balanced"),
    ];
}

impl std::fmt::Display for MetaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(MetaSource::ALL.iter().find(|source| source.0 == *self).map_or("", |source| source.1))
    }
}

impl std::str::FromStr for MetaSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<MetaSource> {
        MetaSource::ALL
            .iter()
            .find(|source| source.1 == text)
            .map(|source| source.0)
            .ok_or_else(|| Error::Usage(format!("`{text}` is none of split, dir, train-balanced")))
    }
}

/// How to split and to corrupt the training images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitConfig {
    /// Applied to the labels of the training set, after the long tail.
    pub noise: Noise,
    /// The imbalance factor, at least 1: how many times more images the first class has than the
    /// last.
    pub imbalance: Option<f64>,
    /// Where the meta set comes from.
    pub meta_source: MetaSource,
    /// Images of a meta set that is split off, in all, the same number of each class.
    pub meta_size: usize,
    /// One seed decides meta set, long tail and noise, each from random numbers of its own.
    pub seed: u64,
}

/// Samples by their place among all of the data set's, with labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Ascending.
    pub indices: Vec<u32>,
    /// Those that are taken for true.
    pub labels: Vec<i32>,
}

/// The biased training set; all four have one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainSet {
    /// Places among all of the data set's samples, ascending.
    pub indices: Vec<u32>,
    /// The labels that training sees.
    pub labels: Vec<i32>,
    /// The true labels as far as they are known, for reports only.
    pub original_labels: Vec<i32>,
    /// Whether the two differ.
    pub corrupted: Vec<bool>,
    /// Whether it is known which labels are wrong: labels were corrupted here, or the data came
    /// with the right ones, too.
    pub known: bool,
}

/// What [`split`] makes of the training images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Biased.
    pub train: TrainSet,
    /// Clean, or what is taken for it.
    pub meta: Labelled,
    /// Whether meta batches have as many samples of each class by force, the meta set being not
    /// balanced itself.
    pub balanced: bool,
}

/// How many images each class of a long tail keeps: ⌊n_max · (1/factor)^{c/(classes−1)}⌋ (Cui et
/// al. 2019, as used by the paper). A quotient within 1e-9 below a whole number counts as that
/// number, as it is meant.
pub fn long_tail_counts(n_max: usize, classes: usize, factor: f64) -> Vec<usize> {
    let last = classes.saturating_sub(1).max(1) as f64;
    (0..classes)
        .map(|class| (n_max as f64 / factor.powf(class as f64 / last) + 1e-9).floor() as usize)
        .collect()
}

/// The size of the meta set where none is asked for: 1000 samples, or 10 a class where a long tail
/// is the only bias; but not more than a tenth of the training samples, nor than half of the
/// smallest class, and one a class at least. The same number of each class.
pub fn default_meta_size(dataset: &Dataset, noise: Noise, imbalance: Option<f64>) -> usize {
    let classes = dataset.classes();
    let long_tail_alone = imbalance.is_some() && noise == Noise::None;
    let wanted = if long_tail_alone { 10 } else { 1000 / classes };
    let smallest = dataset.train.class_counts(classes).into_iter().min().unwrap_or(0);
    classes * wanted.min(dataset.train.len() / 10 / classes).min(smallest / 2).max(1)
}

/// Sets `meta_size` images apart, balanced and with their true labels; thins the rest to a long
/// tail if asked; then applies the noise to its labels.
///
/// The two sets are disjoint for every seed because there is one draw: training gets what the meta
/// set left. n_max of the long tail is the count of the smallest class after the meta set was
/// taken, so that every class can keep its share and the factor is exact; on a balanced data set it
/// is the published code's (N − meta)/C. Class 0 is the largest.
///
/// # Errors
/// [`Error::Usage`] for a meta size of 0 or not a multiple of the classes and for a factor that is
/// not a number ≥ 1; [`Error::Data`] if the meta set would leave some class without training
/// images, or the long tail empties a class.
pub fn split(dataset: &Dataset, config: &SplitConfig) -> Result<Split> {
    let (classes, all) = (dataset.classes(), &dataset.train);
    let labels = &all.labels;
    let SplitConfig { noise, imbalance, meta_source, meta_size, seed } = *config;
    let apart = meta_source == MetaSource::Split;
    if apart && (meta_size == 0 || !meta_size.is_multiple_of(classes)) {
        return Err(Error::Usage(format!(
            "--meta-size {meta_size} is not a positive multiple of the {classes} classes of {}: \
             the meta set holds the same number of each class, so give {} or {}",
            dataset.name,
            (meta_size / classes * classes).max(classes),
            (meta_size / classes).max(1) * classes + classes
        )));
    }
    let mut members = vec![Vec::new(); classes];
    for (position, &label) in labels.iter().enumerate() {
        // `Dataset` has seen that it is in range.
        members[label as usize].push(position as u32);
    }
    let each = if apart { meta_size / classes } else { 0 };
    if let Some((class, short)) = members.iter().enumerate().find(|(_, images)| images.len() <= each) {
        return Err(Error::Data(format!(
            "--meta-size {meta_size} takes {} of each class and must leave some to train on, but class {class} \
             ({}) of the {} has {} (of {} in all): choose a smaller meta set",
            counted(each, "image"),
            dataset.class_names[class],
            dataset.train.name,
            short.len(),
            counted(labels.len(), "image")
        )));
    }
    // From here on `members` holds what is left for training.
    let mut meta = Vec::with_capacity(meta_size);
    for (class, images) in members.iter_mut().enumerate() {
        let (taken, left) = images.partial_shuffle(&mut rng(seed, Stream::MetaSplit, class as u64), each);
        meta.extend_from_slice(taken);
        *images = left.to_vec();
        images.sort_unstable();
    }
    if let Some(factor) = imbalance {
        thin(dataset, &mut members, factor, seed)?;
    }
    let at = |positions: &[u32], values: &[u32]| positions.iter().map(|&p| values[p as usize]).collect();
    let of = |positions: &[u32], values: &[i32]| positions.iter().map(|&p| values[p as usize]).collect();
    let mut positions = members.concat();
    positions.sort_unstable();
    meta.sort_unstable();
    let given: Vec<i32> = of(&positions, labels);
    let labels_now = noise.corrupt(&given, classes, seed)?.labels;
    let original_labels = all.truth.as_ref().map_or(given, |truth| of(&positions, truth));
    let corrupted = labels_now.iter().zip(&original_labels).map(|(now, right)| now != right).collect();
    let train = TrainSet {
        indices: at(&positions, &all.indices),
        labels: labels_now,
        original_labels,
        corrupted,
        known: all.truth.is_some() || noise != Noise::None,
    };
    let meta = match (meta_source, &dataset.meta) {
        (MetaSource::Split, _) => Labelled { indices: at(&meta, &all.indices), labels: of(&meta, labels) },
        (MetaSource::Dir, Some(Part { indices, labels, .. })) => {
            Labelled { indices: indices.clone(), labels: labels.clone() }
        }
        (MetaSource::Dir, None) => {
            return Err(Error::Usage(format!(
                "--meta-source dir needs a meta set in {}: give --meta-dir, or take split or train-balanced",
                dataset.name
            )));
        }
        (MetaSource::TrainBalanced, _) => {
            Labelled { indices: train.indices.clone(), labels: train.labels.clone() }
        }
    };
    Ok(Split { train, meta, balanced: meta_source == MetaSource::TrainBalanced })
}

/// `size` samples of a training part for the test, drawn evenly from its classes, and what is left.
/// The draw is the same for every seed of a run, so that results can be compared.
///
/// # Errors
/// [`Error::Data`] if a class would be left without training samples.
pub(super) fn test_part(all: &Part, size: usize, class_names: &[String]) -> Result<[Part; 2]> {
    let classes = class_names.len();
    let mut taken = vec![false; all.len()];
    for (class, name) in class_names.iter().enumerate() {
        let wanted = size / classes + usize::from(class < size % classes);
        let places = all.labels.iter().enumerate().filter(|place| *place.1 == class as i32);
        let mut places: Vec<usize> = places.map(|place| place.0).collect();
        if places.len() <= wanted {
            return Err(Error::Data(format!(
                "--test-size {size} takes {} of each class and must leave some to train on, but class {class} ({name}) has {}: \
                 choose a smaller one",
                counted(wanted, "sample"),
                places.len()
            )));
        }
        let (drawn, _) = places.partial_shuffle(&mut rng(0, Stream::TestSplit, class as u64), wanted);
        drawn.iter().for_each(|place| taken[*place] = true);
    }
    Ok(all.divide("test set", &taken))
}

/// Leaves of each class only its share of a long tail.
fn thin(dataset: &Dataset, members: &mut [Vec<u32>], factor: f64, seed: u64) -> Result<()> {
    if !(factor >= 1.0 && factor.is_finite()) {
        return Err(Error::Usage(format!(
            "--imbalance {} is no imbalance factor: give a number of at least 1 (1 is balanced)",
            exact(factor)
        )));
    }
    let n_max = members.iter().map(Vec::len).min().unwrap_or(0);
    let counts = long_tail_counts(n_max, members.len(), factor);
    for (class, (images, count)) in members.iter_mut().zip(counts).enumerate() {
        if count == 0 {
            return Err(Error::Data(format!(
                "--imbalance {} empties class {class} ({}): its share of at most {n_max} images a class is below one; \
                 choose a smaller factor",
                exact(factor),
                dataset.class_names[class]
            )));
        }
        let (kept, _) = images.partial_shuffle(&mut rng(seed, Stream::LongTail, class as u64), count);
        *images = kept.to_vec();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{DatasetKind, Table, load};
    use super::*;

    /// A data set of 1×1 images with `counts[c]` images of class c, interleaved.
    fn dataset(counts: &[usize]) -> Dataset {
        let most = counts.iter().copied().max().unwrap_or(0);
        let labels: Vec<i32> = (0..most)
            .flat_map(|i| (0..counts.len()).filter(move |&class| i < counts[class]).map(|class| class as i32))
            .collect();
        let pixels = (0..labels.len()).map(|i| i as u8).collect();
        let train = Table::images("toy training set".into(), [1, 1, 1], pixels, labels);
        let names = (0..counts.len()).map(|class| format!("name{class}")).collect();
        Dataset::new("toy", [train.clone(), train], names, None).unwrap()
    }

    fn config(noise: Noise, imbalance: Option<f64>, meta_size: usize, seed: u64) -> SplitConfig {
        SplitConfig { noise, imbalance, meta_source: MetaSource::Split, meta_size, seed }
    }

    #[test]
    fn meta_is_clean_balanced_and_disjoint_for_every_seed() {
        let data = load(DatasetKind::FashionMnistMini, None).unwrap();
        let mut metas = HashSet::new();
        for seed in 0..20 {
            for imbalance in [None, Some(50.0)] {
                let split = split(&data, &config(Noise::Uniform(0.6), imbalance, 1000, seed)).unwrap();
                let train: HashSet<u32> = split.train.indices.iter().copied().collect();
                let meta: HashSet<u32> = split.meta.indices.iter().copied().collect();
                assert_eq!((train.len(), meta.len()), (split.train.indices.len(), 1000));
                assert!(train.is_disjoint(&meta));
                if imbalance.is_none() {
                    assert_eq!(train.len() + meta.len(), data.train.len());
                    metas.insert(split.meta.indices.clone());
                }
                for (index, label) in split.meta.indices.iter().zip(&split.meta.labels) {
                    assert_eq!(data.train.labels[*index as usize], *label);
                }
                for (index, label) in split.train.indices.iter().zip(&split.train.original_labels) {
                    assert_eq!(data.train.labels[*index as usize], *label);
                }
                for class in 0..10 {
                    assert_eq!(split.meta.labels.iter().filter(|&&label| label == class).count(), 100);
                }
            }
        }
        assert_eq!(metas.len(), 20, "each seed has its own meta set");
    }

    #[test]
    fn noise_and_tail_leave_the_meta_set_alone() {
        let data = dataset(&[60, 50, 55]);
        let plain = split(&data, &config(Noise::None, None, 9, 4)).unwrap();
        let both = split(&data, &config(Noise::Flip(0.5), Some(4.0), 9, 4)).unwrap();
        assert_eq!(plain.meta, both.meta);
        assert!(!plain.train.corrupted.contains(&true) && both.train.corrupted.contains(&true));
        assert_eq!(plain.train.labels, plain.train.original_labels);
        for i in 0..both.train.labels.len() {
            assert_eq!(both.train.corrupted[i], both.train.labels[i] != both.train.original_labels[i]);
        }
        assert_eq!(both, split(&data, &config(Noise::Flip(0.5), Some(4.0), 9, 4)).unwrap());
    }

    #[test]
    fn long_tail_counts_by_the_formula() {
        // The published counts for CIFAR-10 (5000 a class) at factor 100.
        assert_eq!(long_tail_counts(5000, 10, 100.0), [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]);
        assert_eq!(long_tail_counts(5000, 10, 1.0), [5000; 10]);
        assert_eq!(long_tail_counts(3, 1, 10.0), [3]);
        // Whole quotients, of which floating point puts some just below.
        for n in 1..2000 {
            for factor in [2.0, 3.0, 7.0, 10.0, 49.0] {
                assert_eq!(*long_tail_counts(n * factor as usize, 5, factor).last().unwrap(), n);
            }
        }
    }

    #[test]
    fn long_tail_of_an_uneven_set_starts_from_its_smallest_class() {
        let data = dataset(&[60, 48, 70, 55]);
        for seed in 0..20 {
            let split = split(&data, &config(Noise::None, Some(8.0), 32, seed)).unwrap();
            let count = |class| split.train.original_labels.iter().filter(|&&label| label == class).count();
            assert_eq!([0, 1, 2, 3].map(count), [40, 20, 10, 5]); // 48 − 8 = 40, halved each time
        }
    }

    #[test]
    fn a_meta_set_that_nobody_asked_for_suits_the_data() {
        let size = |counts: &[usize]| default_meta_size(&dataset(counts), Noise::Uniform(0.4), None);
        assert_eq!(size(&[5000, 5000]), 1000);
        assert_eq!(size(&[4000, 5000]), 900);
        // The same number of each class.
        assert_eq!(size(&[100, 100, 100]), 30);
        assert_eq!(size(&[100, 100, 98]), 27);
        assert_eq!(size(&[500, 500, 6]), 9);
        assert_eq!(size(&[5, 5, 2]), 3);
        let tail = |counts: &[usize]| default_meta_size(&dataset(counts), Noise::None, Some(10.0));
        assert_eq!(tail(&[5000, 5000]), 20);
        assert_eq!(tail(&[60, 60]), 12);
        let data = load(DatasetKind::FashionMnistMini, None).unwrap();
        assert_eq!(default_meta_size(&data, Noise::Uniform(0.6), None), 1000);
        assert_eq!(default_meta_size(&data, Noise::None, Some(100.0)), 100);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let data = dataset(&[60, 20, 70]);
        let fails = |config: SplitConfig, code: u8, expected: &str| {
            let error = split(&data, &config).unwrap_err();
            assert_eq!(error.exit_code(), code);
            assert!(error.to_string().contains(expected), "{error}");
        };
        fails(
            config(Noise::None, None, 10, 1),
            2,
            "--meta-size 10 is not a positive multiple of the 3 classes of toy",
        );
        fails(config(Noise::None, None, 0, 1), 2, "--meta-size 0");
        let short = "takes 20 images of each class and must leave some to train on, but class 1 (name1) of the toy \
                     training set has 20 (of 150 images in all)";
        fails(config(Noise::None, None, 60, 1), 1, short);
        fails(config(Noise::None, None, 3000, 1), 1, "takes 1000 images of each class");
        assert!(split(&data, &config(Noise::None, None, 57, 1)).is_ok());
        let wrong = Table::images("toy training set".into(), [1, 1, 1], vec![0; 3], vec![0, 1, 2]);
        let names = vec!["a".into(), "b".into()];
        let error = Dataset::new("toy", [wrong.clone(), wrong], names, None).unwrap_err().to_string();
        assert!(error.starts_with("a label of the toy training set is 2, out of range"), "{error}");
        fails(config(Noise::None, Some(12.0), 30, 1), 1, "--imbalance 12 empties class 2 (name2)");
        assert!(split(&data, &config(Noise::None, Some(10.0), 30, 1)).is_ok());
        for factor in [0.5, f64::NAN, f64::INFINITY, -3.0] {
            fails(config(Noise::None, Some(factor), 30, 1), 2, "is no imbalance factor");
        }
    }
}
