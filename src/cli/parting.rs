//! The samples of a walk in parts: by whether their label is right, and by how large their class
//! is. V knows neither.

use metatape::train::SampleRow;

/// Sums over samples.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    /// How many they are.
    pub samples: usize,
    /// Of the losses.
    pub loss: f64,
    /// Of u.
    pub u: f64,
    /// Of V.
    pub weight: f64,
    /// Of the ways that V moves.
    pub moved: f64,
}

impl Sums {
    /// Both together.
    pub fn plus(self, other: Sums) -> Sums {
        Sums {
            samples: self.samples + other.samples,
            loss: self.loss + other.loss,
            u: self.u + other.u,
            weight: self.weight + other.weight,
            moved: self.moved + other.moved,
        }
    }

    /// One of the sums for each sample; none without samples.
    pub fn mean(&self, sum: fn(&Sums) -> f64) -> Option<f64> {
        (self.samples > 0).then(|| sum(self) / self.samples as f64)
    }
}

/// A way to part the samples, and what the parts came to.
pub struct Parting {
    /// What the parts are called.
    pub names: &'static [&'static str],
    /// Step after step, the sums over each part.
    pub history: Vec<Vec<Sums>>,
    part: Box<dyn Fn(&SampleRow) -> usize>,
}

impl Parting {
    /// Labels that are right, and wrong ones.
    pub fn by_label() -> Parting {
        let part = Box::new(|row: &SampleRow| usize::from(row.corrupted == Some(true)));
        Parting { names: &["right", "wrong"], history: Vec::new(), part }
    }

    /// Classes in thirds by the size of each: [`thirds`].
    pub fn by_class_size(counts: &[usize]) -> Parting {
        let thirds = thirds(counts);
        let part = Box::new(move |row: &SampleRow| thirds[row.label as usize]);
        Parting { names: &["head", "middle", "tail"], history: Vec::new(), part }
    }

    /// The part of a sample.
    pub fn of(&self, row: &SampleRow) -> usize {
        (self.part)(row)
    }

    /// Takes a step's samples.
    pub fn add(&mut self, rows: &[SampleRow]) {
        let mut sums = vec![Sums::default(); self.names.len()];
        for row in rows {
            let one = Sums { samples: 1, loss: row.loss, u: row.u, weight: row.weight, moved: row.moved };
            let sum = &mut sums[self.of(row)];
            *sum = sum.plus(one);
        }
        self.history.push(sums);
    }

    /// Each part over some steps.
    pub fn over(&self, steps: &[Vec<Sums>]) -> Vec<Sums> {
        let mut all = vec![Sums::default(); self.names.len()];
        for step in steps {
            all.iter_mut().zip(step).for_each(|(all, sums)| *all = all.plus(*sums));
        }
        all
    }

    /// Steps in which both parts have samples, and those of them in which mean u of the first is
    /// the larger.
    pub fn ahead(&self, first: usize, second: usize) -> (usize, usize) {
        let means = self.history.iter().filter_map(|step| {
            let u = |part: usize| step[part].mean(|s| s.u);
            Some((u(first)?, u(second)?))
        });
        means.fold((0, 0), |(both, ahead), (a, b)| (both + 1, ahead + usize::from(a > b)))
    }
}

/// For each class its third by size: 0 the largest, 2 the smallest. What does not divide by three
/// goes to the middle or to both ends, so that head and tail have the same number of classes; of
/// equal classes the first counts as the larger.
pub fn thirds(counts: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|class| std::cmp::Reverse(counts[*class]));
    // The place between 0 (largest) and 2 (smallest), rounded.
    let last = counts.len().saturating_sub(1).max(1);
    let mut third = vec![0; counts.len()];
    for (place, class) in order.into_iter().enumerate() {
        third[class] = (4 * place + last) / (2 * last);
    }
    third
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_are_by_size_and_alike_at_both_ends() {
        assert_eq!(thirds(&[5, 50, 500]), [2, 1, 0]);
        assert_eq!(thirds(&[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]), [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]);
        assert_eq!(thirds(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!((thirds(&[3, 4]), thirds(&[3])), (vec![2, 0], vec![0]));
    }
}
