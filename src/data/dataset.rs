use std::sync::Arc;

use super::split::test_part;
use crate::tape::Shape;
use crate::words::counted;
use crate::{Error, Result};

/// Samples one after the other, row-major: all bytes, or all floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Images `[n, h, w, c]`.
    Bytes(Arc<Vec<u8>>),
    /// Features `[n, d]`.
    Floats(Arc<Vec<f32>>),
}

impl Samples {
    /// Of images.
    pub fn bytes(values: Vec<u8>) -> Samples {
        Samples::Bytes(Arc::new(values))
    }

    /// Of features.
    pub fn floats(values: Vec<f32>) -> Samples {
        Samples::Floats(Arc::new(values))
    }

    /// Entries of all samples.
    fn entries(&self) -> usize {
        match self {
            Samples::Bytes(values) => values.len(),
            Samples::Floats(values) => values.len(),
        }
    }

    /// Puts `more` of the same kind behind these.
    fn append(&mut self, more: &Samples) {
        match (self, more) {
            (Samples::Bytes(all), Samples::Bytes(more)) => {
                let all = Arc::make_mut(all);
                all.reserve_exact(more.len());
                all.extend_from_slice(more);
            }
            (Samples::Floats(all), Samples::Floats(more)) => {
                let all = Arc::make_mut(all);
                all.reserve_exact(more.len());
                all.extend_from_slice(more);
            }
            (Samples::Bytes(_), Samples::Floats(_)) | (Samples::Floats(_), Samples::Bytes(_)) => {
                debug_assert!(false, "bytes and floats have different shapes");
            }
        }
    }
}

/// One part of a data set (training, meta or test) as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What errors and reports call it, such as `cifar10 training set`.
    pub name: String,
    /// `[h, w, c]` of an image, c being 1 (grey) or 3 (red, green, blue); `[d]` of features.
    pub shape: Shape,
    /// All of its samples.
    pub samples: Samples,
    /// `[n]`, each in `0..classes`, as they are given.
    pub labels: Vec<i32>,
    /// `[n]`, the right ones, where they are known beside those that are given.
    pub truth: Option<Vec<i32>>,
    /// `[n]`, what the samples are called, such as their files; or nothing.
    pub names: Vec<String>,
    /// `[d]`, what the features are called; or nothing.
    pub columns: Vec<String>,
}

impl Table {
    /// Images `[n, h, w, c]` with their labels.
    pub fn images(name: String, shape: [usize; 3], pixels: Vec<u8>, labels: Vec<i32>) -> Table {
        let (samples, shape) = (Samples::bytes(pixels), shape.into());
        Table { name, shape, samples, labels, truth: None, names: Vec::new(), columns: Vec::new() }
    }

    /// Features `[n, d]` with their labels.
    pub fn features(name: String, d: usize, values: Vec<f32>, labels: Vec<i32>) -> Table {
        let (samples, shape) = (Samples::floats(values), [d].into());
        Table { name, shape, samples, labels, truth: None, names: Vec::new(), columns: Vec::new() }
    }

    /// The same with the right labels, where they are known.
    pub(super) fn right(mut self) -> Table {
        self.labels = self.truth.take().unwrap_or(self.labels);
        self
    }
}

/// One part of a data set: which of its samples, with which labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What errors and reports call it.
    pub name: String,
    /// Places among all samples, ascending.
    pub indices: Vec<u32>,
    /// `[n]`, as they are given.
    pub labels: Vec<i32>,
    /// `[n]`, the right ones, where they are known beside those that are given.
    pub truth: Option<Vec<i32>>,
}

impl Part {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none; no data set has such a part.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many samples each of `classes` classes has.
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        self.labels.iter().for_each(|&label| counts[label as usize] += 1);
        counts
    }

    /// The part called `name` of the samples that are taken, and the part of the others.
    pub(super) fn divide(&self, name: &str, taken: &[bool]) -> [Part; 2] {
        [true, false].map(|which| {
            let places = || (0..self.len()).filter(|i| taken[*i] == which);
            let of = |values: &[i32]| places().map(|i| values[i]).collect();
            Part {
                name: if which { name } else { &self.name }.to_owned(),
                indices: places().map(|i| self.indices[i]).collect(),
                labels: of(&self.labels),
                truth: self.truth.as_deref().map(of),
            }
        })
    }
}

/// Random crops and flips of training (and meta) images, drawn anew for each step by
/// [`super::Batcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    /// Width of the reflected border from which a crop of the original size is taken; less than
    /// both sides.
    pub pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// A data set in memory. All parts share one piece of it.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The name on the command line; of a folder, the folder's own name.
    pub name: String,
    /// `[h, w, c]` of an image, `[d]` of features.
    pub shape: Shape,
    /// All of them, the training samples first.
    pub samples: Samples,
    /// What they are called, such as their files; or nothing.
    pub names: Vec<String>,
    /// What a table calls its features; or nothing.
    pub columns: Vec<String>,
    /// The training samples.
    pub train: Part,
    /// Samples with clean labels, where the data have them apart.
    pub meta: Option<Part>,
    /// The test samples.
    pub test: Part,
    /// `[classes]`, by label.
    pub class_names: Vec<String>,
    /// `[classes]`, the coarse class of each class, where the data set has such (CIFAR-100).
    pub coarse: Option<Vec<i32>>,
    /// Per channel, of pixel/255; of features, per column.
    pub mean: Vec<f64>,
    /// Per channel, of pixel/255; of features, per column; never 0.
    pub std: Vec<f64>,
    /// Random crops and flips, where the data set wants them: colour images.
    pub augment: Option<Augment>,
    /// What happened on reading, in one sentence each, for people.
    pub remarks: Vec<String>,
}

impl Dataset {
    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Entries of one sample.
    pub fn sample_len(&self) -> usize {
        self.shape.count()
    }

    /// All samples.
    pub fn count(&self) -> usize {
        self.samples.entries() / self.sample_len()
    }

    /// The bytes `[h, w, c]` of the image at a place among all samples; none of features.
    pub fn image(&self, index: u32) -> &[u8] {
        let len = self.sample_len();
        match &self.samples {
            Samples::Bytes(all) => &all[index as usize * len..][..len],
            Samples::Floats(_) => &[],
        }
    }

    /// What a sample is called: its file, or its place among all samples.
    pub fn sample_name(&self, index: u32) -> String {
        self.names.get(index as usize).cloned().unwrap_or_else(|| index.to_string())
    }

    /// Puts a data set together: checks that its parts fit and that no class is without training
    /// samples, and computes mean and deviation from all training samples unless `statistics` are
    /// given.
    ///
    /// # Errors
    /// [`Error::Data`] for a part without samples, parts of two shapes, a label out of range, or a
    /// class without training samples.
    pub fn new(
        name: impl Into<String>,
        [train, test]: [Table; 2],
        class_names: Vec<String>,
        statistics: Option<(Vec<f64>, Vec<f64>)>,
    ) -> Result<Dataset> {
        let test_part = part(&test, train.labels.len(), &train.shape, &class_names)?;
        let train_part = part(&train, 0, &train.shape, &class_names)?;
        let mut dataset = Dataset::of(name.into(), train, [train_part, test_part], class_names, statistics)?;
        dataset.append(test);
        Ok(dataset)
    }

    /// As [`Dataset::new`], with a part of the training samples for the test: `size` of them, drawn
    /// evenly from each class, the same for every seed of a run.
    ///
    /// # Errors
    /// As there, and if `size` leaves a class without training samples.
    pub fn with_test_split(
        name: impl Into<String>,
        train: Table,
        size: usize,
        class_names: Vec<String>,
    ) -> Result<Dataset> {
        let all = part(&train, 0, &train.shape, &class_names)?;
        every_class(&all, &class_names)?;
        let [mut test, left] = test_part(&all, size, &class_names)?;
        test.labels = test.truth.take().unwrap_or(test.labels);
        Dataset::of(name.into(), train, [left, test], class_names, None)
    }

    /// Samples of this shape for a network that has been trained already: all are the test set.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn apart(
        table: Table,
        shape: &Shape,
        class_names: Vec<String>,
        (mean, std): (Vec<f64>, Vec<f64>),
    ) -> Result<Dataset> {
        let test = part(&table, 0, shape, &class_names)?;
        let none = Part { name: "training set".into(), indices: Vec::new(), labels: Vec::new(), truth: None };
        let name = table.name.clone();
        Ok(Dataset {
            augment: None,
            ..Dataset::assembled(name, table, [none, test], class_names, (mean, std))
        })
    }

    /// The parts of what is in the table `first`, and maybe behind it.
    fn of(
        name: String,
        first: Table,
        [train, test]: [Part; 2],
        class_names: Vec<String>,
        statistics: Option<(Vec<f64>, Vec<f64>)>,
    ) -> Result<Dataset> {
        every_class(&train, &class_names)?;
        let statistics = statistics.unwrap_or_else(|| moments(&first.samples, &first.shape, &train.indices));
        Ok(Dataset::assembled(name, first, [train, test], class_names, statistics))
    }

    fn assembled(
        name: String,
        Table { shape, samples, names, columns, .. }: Table,
        [train, test]: [Part; 2],
        class_names: Vec<String>,
        (mean, std): (Vec<f64>, Vec<f64>),
    ) -> Dataset {
        let pad = 4;
        let augment = match shape[..] {
            [h, w, 3] if h.min(w) > pad => Some(Augment { pad, flip: true }),
            _ => None,
        };
        let (meta, coarse, remarks) = (None, None, Vec::new());
        Dataset {
            name,
            shape,
            samples,
            names,
            columns,
            train,
            meta,
            test,
            class_names,
            coarse,
            mean,
            std,
            augment,
            remarks,
        }
    }

    /// Adds samples with clean labels, for the meta set.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn with_meta(mut self, meta: Table) -> Result<Dataset> {
        self.meta = Some(part(&meta, self.count(), &self.shape, &self.class_names)?);
        self.append(meta);
        Ok(self)
    }

    /// Puts samples behind all others.
    fn append(&mut self, more: Table) {
        let before = self.count();
        // Of one shape, they are of one kind.
        self.samples.append(&more.samples);
        // Names stand for all samples or for none.
        if !more.names.is_empty() || !self.names.is_empty() {
            let number = |from: usize, to: usize| (from..to).map(|i| i.to_string());
            self.names.extend(number(self.names.len(), before));
            self.names.extend(more.names);
            self.names.extend(number(self.names.len(), self.count()));
        }
    }
}

/// Mean and standard deviation of some samples: of pixel/255 by channel, of features by column.
/// What is constant gets deviation 1, so that normalising makes it zero.
fn moments(samples: &Samples, shape: &Shape, indices: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let (len, channels) = (shape.count(), shape.last().copied().unwrap_or(1));
    let rows = || indices.iter().map(|i| *i as usize * len);
    let count = (indices.len() * (len / channels)) as u64;
    match samples {
        Samples::Bytes(all) => {
            // Sums are of integers, so the result does not depend on any order.
            let mut sums = vec![(0_u64, 0_u64); channels];
            for row in rows() {
                for pixel in all[row..row + len].chunks_exact(channels) {
                    for (sums, value) in sums.iter_mut().zip(pixel) {
                        let value = u64::from(*value);
                        *sums = (sums.0 + value, sums.1 + value * value);
                    }
                }
            }
            let moments = sums.into_iter().map(|(sum, squares)| {
                // count² times the variance, without rounding.
                let spread = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
                let std = if spread == 0 { 1.0 } else { (spread as f64).sqrt() / count as f64 / 255.0 };
                (sum as f64 / count as f64 / 255.0, std)
            });
            moments.unzip()
        }
        Samples::Floats(all) => {
            let moments = (0..channels).map(|column| {
                let values = || rows().map(|at| f64::from(all[at + column]));
                let mean = values().sum::<f64>() / count as f64;
                let std = (values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count as f64).sqrt();
                (mean, if std > 0.0 { std } else { 1.0 })
            });
            moments.unzip()
        }
    }
}

/// Refuses training samples that lack a class.
pub(super) fn every_class(train: &Part, names: &[String]) -> Result<()> {
    match train.class_counts(names.len()).iter().position(|count| *count == 0) {
        None => Ok(()),
        Some(class) => Err(Error::Data(format!(
            "the {} has no sample of class {class} ({}): add some, or leave the class out",
            train.name, names[class]
        ))),
    }
}

/// A table as a part whose samples begin at the place `first`, once it has been checked.
fn part(table: &Table, first: usize, shape: &Shape, class_names: &[String]) -> Result<Part> {
    let Table { name, samples, labels, truth, .. } = table;
    if labels.is_empty() || table.shape.count() == 0 {
        return Err(Error::Data(format!("the {name} holds no samples: add some")));
    }
    if table.shape != *shape {
        return Err(Error::Data(format!(
            "the samples of the {name} are {} and the training samples are {}: all must have one size{}",
            shape_name(&table.shape),
            shape_name(shape),
            if shape.len() == 3 { ", so scale them, or give --image-size" } else { "" },
        )));
    }
    if samples.entries() != labels.len() * shape.count()
        || truth.as_ref().is_some_and(|t| t.len() != labels.len())
    {
        return Err(Error::Data(format!(
            "the {name} has {} for {} of {}: there must be one for each",
            counted(labels.len(), "label"),
            counted(samples.entries() / shape.count(), "sample"),
            shape_name(shape)
        )));
    }
    let classes = class_names.len();
    let every = labels.iter().chain(truth.iter().flatten());
    if let Some(bad) = every.copied().find(|label| !(0..classes as i32).contains(label)) {
        return Err(Error::Data(format!(
            "a label of the {name} is {bad}, out of range: there are {classes} classes"
        )));
    }
    if first + labels.len() > i32::MAX as usize {
        return Err(Error::Data(format!("the {name} has too many samples: {}", labels.len())));
    }
    let indices = (first as u32..).take(labels.len()).collect();
    Ok(Part { name: name.clone(), indices, labels: labels.clone(), truth: truth.clone() })
}

/// `height×width` and whether there is colour, or how many features, for messages.
fn shape_name(shape: &Shape) -> String {
    match shape[..] {
        [h, w, c] => format!("{h}×{w} {}", if c == 1 { "grey" } else { "colour" }),
        _ => counted(shape.count(), "feature"),
    }
}
