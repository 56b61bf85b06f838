//! Batches as a function of the step: nothing is carried from one to the next, so a resumed run
//! needs the step alone.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Augment;
use crate::seed::{Stream, rng};
use crate::{Error, Result};

/// How batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Samples a batch.
    pub size: usize,
    /// The run's seed.
    pub seed: u64,
    /// [`Stream::TrainBatches`] or [`Stream::MetaBatches`], so that the two orders are independent.
    pub stream: Stream,
    /// Random crops and flips, or none.
    pub augment: Option<Augment>,
}

/// One batch of `size` samples.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// `[size]`, places in the lists that the [`Batcher`] was made from.
    pub positions: Vec<u32>,
    /// `[size]` of (index, dx, dy, flip): the image's place in the data set and its augmentation.
    /// With h rows and w columns, pixel (y, x) of the result is pixel
    /// (reflect(y + dy), reflect(x′ + dx)) of the image, where x′ = w−1−x if flip is 1 and x if it
    /// is 0, and reflect mirrors about the outermost pixels (−1 ↦ 1, h ↦ h−2). dx and dy are in
    /// −pad..=pad; (index, 0, 0, 0) is the image as it is. That is: pad by reflection, crop, then
    /// flip.
    pub picks: Vec<[i32; 4]>,
    /// `[size]`.
    pub labels: Vec<i32>,
}

impl Batch {
    fn clear(&mut self) {
        self.positions.clear();
        self.picks.clear();
        self.labels.clear();
    }
}

/// What a pass over the samples is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passes {
    /// Each sample once; a batch is of one pass.
    Epochs,
    /// Each sample once; a batch may run over the end of one pass into the next.
    Endless,
    /// Of each class as many, drawn with replacement.
    Balanced,
}

/// Draws shuffled batches.
#[derive(Clone, Debug)]
pub struct Batcher {
    indices: Vec<u32>,
    labels: Vec<i32>,
    config: BatchConfig,
    order_of: Passes,
    /// With [`Passes::Balanced`], the places of each class' samples.
    classes: Vec<Vec<u32>>,
    /// The order of the samples in pass `pass`.
    order: Vec<u32>,
    pass: Option<u64>,
    batch: Batch,
}

impl Batcher {
    /// Batches for training: each epoch has an order of its own and ⌊n/size⌋ full batches; what is
    /// left over is dropped, and differs from epoch to epoch.
    ///
    /// # Errors
    /// [`Error::Usage`] for a batch size of 0 or more than the number of samples.
    pub fn per_epoch(indices: &[u32], labels: &[i32], config: BatchConfig) -> Result<Batcher> {
        if config.size > indices.len() {
            return Err(Error::Usage(format!(
                "--batch {} is more than the {} training samples: choose a smaller batch",
                config.size,
                indices.len()
            )));
        }
        Batcher::new(indices, labels, config, Passes::Epochs)
    }

    /// Batches of the meta set: one pass after the other, each in an order of its own, cut into
    /// batches without regard to where a pass ends. So every sample is used equally often, and a
    /// batch may be larger than the set.
    ///
    /// # Errors
    /// [`Error::Usage`] for a batch size of 0, [`Error::Data`] for an empty set.
    pub fn endless(indices: &[u32], labels: &[i32], config: BatchConfig) -> Result<Batcher> {
        Batcher::new(indices, labels, config, Passes::Endless)
    }

    /// Batches with as many samples of each class (to within one), drawn with replacement: meta
    /// batches from a training set of unequal classes.
    ///
    /// # Errors
    /// As [`Batcher::endless`].
    pub fn balanced(indices: &[u32], labels: &[i32], config: BatchConfig) -> Result<Batcher> {
        let mut batcher = Batcher::new(indices, labels, config, Passes::Balanced)?;
        let classes = labels.iter().copied().max().unwrap_or(0) as usize + 1;
        batcher.classes = vec![Vec::new(); classes];
        for (position, label) in labels.iter().enumerate() {
            batcher.classes[*label as usize].push(position as u32);
        }
        batcher.classes.retain(|class| !class.is_empty());
        Ok(batcher)
    }

    fn new(indices: &[u32], labels: &[i32], config: BatchConfig, order_of: Passes) -> Result<Batcher> {
        if config.size == 0 {
            return Err(Error::Usage("--batch 0 holds no sample: choose at least 1".into()));
        }
        if indices.is_empty() || indices.len() != labels.len() {
            let (n, k) = (indices.len(), labels.len());
            return Err(Error::Data(format!(
                "batches need samples with one label each, here are {n} and {k} labels"
            )));
        }
        let (indices, labels) = (indices.to_vec(), labels.to_vec());
        Ok(Batcher {
            indices,
            labels,
            config,
            order_of,
            classes: Vec::new(),
            order: Vec::new(),
            pass: None,
            batch: Batch::default(),
        })
    }

    /// The number of samples drawn from.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Never: a batcher has samples.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Full batches in one pass, ⌊n/size⌋; 0 only for an endless batcher whose batch is larger than
    /// the set.
    pub fn batches_per_epoch(&self) -> u64 {
        (self.indices.len() / self.config.size) as u64
    }

    /// The batch of `step` (counted from 0 over the whole run): a function of the samples, the
    /// configuration and the step alone. Going through steps in order is cheap; jumping costs one
    /// shuffle.
    pub fn batch(&mut self, step: u64) -> &Batch {
        let (n, size) = (self.indices.len() as u64, self.config.size as u64);
        let first = if self.order_of != Passes::Epochs {
            step * size
        } else {
            // As if an epoch's leftover were skipped in one long row of passes.
            let per_epoch = self.batches_per_epoch();
            step / per_epoch * n + step % per_epoch * size
        };
        self.batch.clear();
        for at in first..first + size {
            self.shuffle(at / n);
            let position = self.order[(at % n) as usize];
            self.batch.positions.push(position);
            self.batch.labels.push(self.labels[position as usize]);
            self.batch.picks.push([self.indices[position as usize] as i32, 0, 0, 0]);
        }
        if let Some(Augment { pad, flip }) = self.config.augment {
            let mut rng = rng(self.config.seed, augmentation(self.config.stream), step);
            let pad = pad as i32;
            for [_, dx, dy, mirrored] in &mut self.batch.picks {
                *dx = rng.random_range(-pad..=pad);
                *dy = rng.random_range(-pad..=pad);
                *mirrored = i32::from(flip && rng.random_bool(0.5));
            }
        }
        &self.batch
    }

    /// Makes `order` that of `pass`.
    fn shuffle(&mut self, pass: u64) {
        if self.pass != Some(pass) {
            let mut rng = rng(self.config.seed, self.config.stream, pass);
            self.order.clear();
            match self.order_of {
                Passes::Epochs | Passes::Endless => {
                    self.order.extend(0..self.indices.len() as u32);
                    self.order.shuffle(&mut rng);
                }
                Passes::Balanced => {
                    let classes = self.classes.iter().cycle().take(self.indices.len());
                    self.order.extend(classes.map(|class| class[rng.random_range(0..class.len())]));
                }
            }
            self.pass = Some(pass);
        }
    }
}

/// The stream from which the crops of batches in a stream's order are drawn.
fn augmentation(of: Stream) -> Stream {
    match of {
        Stream::MetaBatches => Stream::MetaAugmentation,
        _ => Stream::TrainAugmentation,
    }
}

/// Batches in the given order and without augmentation, for evaluation, each with the number of its
/// rows that count: the last one is filled up to `size` (at least 1) with repetitions of its first
/// sample, since a program has one batch size.
pub fn in_order<'a>(
    indices: &'a [u32],
    labels: &'a [i32],
    size: usize,
) -> impl Iterator<Item = (Batch, usize)> + 'a {
    let size = size.max(1);
    (0..indices.len()).step_by(size).map(move |start| {
        let rows = size.min(indices.len() - start);
        let positions: Vec<u32> = (0..size).map(|i| (start + if i < rows { i } else { 0 }) as u32).collect();
        let picks = positions.iter().map(|&at| [indices[at as usize] as i32, 0, 0, 0]).collect();
        let labels = positions.iter().map(|&at| labels[at as usize]).collect();
        (Batch { positions, picks, labels }, rows)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn config(size: usize, stream: Stream) -> BatchConfig {
        BatchConfig { size, seed: 3, stream, augment: Some(Augment { pad: 4, flip: true }) }
    }

    /// Indices 1000, 1002, …, and as label the position.
    fn samples(n: u32) -> (Vec<u32>, Vec<i32>) {
        ((0..n).map(|i| 1000 + 2 * i).collect(), (0..n as i32).collect())
    }

    #[test]
    fn an_epoch_covers_each_sample_at_most_once_and_drops_the_rest() {
        let (indices, labels) = samples(53);
        let mut batcher = Batcher::per_epoch(&indices, &labels, config(10, Stream::TrainBatches)).unwrap();
        assert_eq!(batcher.batches_per_epoch(), 5);
        let mut orders = HashSet::new();
        let mut ever = HashSet::new();
        for epoch in 0..20 {
            let mut order = Vec::new();
            for step in 0..5 {
                let batch = batcher.batch(5 * epoch + step);
                assert_eq!((batch.positions.len(), batch.picks.len(), batch.labels.len()), (10, 10, 10));
                for i in 0..10 {
                    let position = batch.positions[i];
                    assert_eq!(batch.picks[i][0] as u32, indices[position as usize]);
                    assert_eq!(batch.labels[i] as u32, position);
                }
                order.extend_from_slice(&batch.positions);
            }
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), 50);
            ever.extend(order.iter().copied());
            orders.insert(order);
        }
        assert_eq!((orders.len(), ever.len()), (20, 53));
    }

    #[test]
    fn endless_batches_use_every_sample_equally() {
        let (indices, labels) = samples(7);
        for size in [3, 7, 20] {
            let mut batcher = Batcher::endless(&indices, &labels, config(size, Stream::MetaBatches)).unwrap();
            let mut uses = [0; 7];
            for step in 0..7 {
                batcher.batch(step).positions.iter().for_each(|&position| uses[position as usize] += 1);
            }
            assert_eq!(uses, [size; 7]);
        }
    }

    #[test]
    fn balanced_batches_have_as_many_of_each_class() {
        // 40 of class 0, 10 of class 2, 3 of class 3.
        let labels: Vec<i32> = (0..53).map(|i| if i < 40 { 0 } else { 2 + i32::from(i >= 50) }).collect();
        let indices: Vec<u32> = (100..153).collect();
        let mut batcher = Batcher::balanced(&indices, &labels, config(12, Stream::MetaBatches)).unwrap();
        let mut seen = HashSet::new();
        for step in 0..60 {
            let batch = batcher.batch(step);
            for class in [0, 2, 3] {
                let count = batch.labels.iter().filter(|label| **label == class).count();
                assert!((3..=5).contains(&count), "step {step}: {count} of class {class}");
            }
            for (pick, position) in batch.picks.iter().zip(&batch.positions) {
                assert_eq!(pick[0], *position as i32 + 100);
                seen.insert(*position);
            }
        }
        assert_eq!(seen.len(), 53, "every sample comes");
    }

    #[test]
    fn any_step_is_the_same_however_it_is_reached() {
        let (indices, labels) = samples(53);
        for kind in [Batcher::per_epoch, Batcher::endless, Batcher::balanced] {
            let make = || kind(&indices, &labels, config(10, Stream::MetaBatches)).unwrap();
            let mut whole = make();
            let all: Vec<Batch> = (0..40).map(|step| whole.batch(step).clone()).collect();
            for start in [1, 5, 17, 39] {
                let mut resumed = make();
                for step in start..40 {
                    assert_eq!(*resumed.batch(step), all[step as usize]);
                }
            }
            let mut other = Batcher { config: BatchConfig { seed: 4, ..whole.config }, ..make() };
            assert_ne!(*other.batch(0), all[0]);
        }
    }

    #[test]
    fn augmentation_is_uniform_and_independent_of_the_other_stream() {
        let (indices, labels) = samples(400);
        let mut train = Batcher::per_epoch(&indices, &labels, config(100, Stream::TrainBatches)).unwrap();
        let mut meta = Batcher::endless(&indices, &labels, config(100, Stream::MetaBatches)).unwrap();
        let (mut shifts, mut flips) = ([[0_usize; 9]; 2], 0);
        let steps = 200;
        for step in 0..steps {
            let picks = train.batch(step).picks.clone();
            assert_ne!(picks, meta.batch(step).picks);
            for [_, dx, dy, flip] in picks {
                shifts[0][(dx + 4) as usize] += 1;
                shifts[1][(dy + 4) as usize] += 1;
                flips += flip;
            }
        }
        let n = 100.0 * steps as f64;
        // Within 5 standard deviations of a binomial count.
        let plausible = |count: f64, p: f64| (count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt();
        assert!(shifts.iter().flatten().all(|&count| plausible(count as f64, 1.0 / 9.0)), "{shifts:?}");
        assert!(plausible(f64::from(flips), 0.5));
    }

    #[test]
    fn evaluation_goes_in_order_and_fills_up() {
        let (indices, labels) = samples(7);
        let batches: Vec<(Batch, usize)> = in_order(&indices, &labels, 3).collect();
        assert_eq!(batches.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(batches[1].0.positions, [3, 4, 5]);
        assert_eq!(batches[2].0.picks, [[1012, 0, 0, 0]; 3]);
        assert_eq!(batches[2].0.labels, [6; 3]);
        assert_eq!(in_order(&[], &[], 3).count(), 0);
    }

    #[test]
    fn impossible_sizes() {
        let (indices, labels) = samples(7);
        let too_large = Batcher::per_epoch(&indices, &labels, config(8, Stream::TrainBatches)).unwrap_err();
        let expected = "--batch 8 is more than the 7 training samples: choose a smaller batch";
        assert_eq!((too_large.exit_code(), too_large.to_string().as_str()), (2, expected));
        let zero = Batcher::endless(&indices, &labels, config(0, Stream::MetaBatches)).unwrap_err();
        assert_eq!(zero.exit_code(), 2);
        assert!(Batcher::endless(&[], &[], config(1, Stream::MetaBatches)).is_err());
        assert!(Batcher::endless(&indices, &labels[1..], config(1, Stream::MetaBatches)).is_err());
    }
}
