//! What schemes keep from one network to the next, and how they see classes, against numbers worked
//! out by hand.

use metatape::meta::schemes::{
    AdaBoost, Glc, Memory, Moment, Predictions, Scheme, Set, Stages, Trained, class_groups,
};

/// A network whose predictions are known.
struct Known {
    train: Predictions,
    meta: Predictions,
    test: Predictions,
}

impl Trained for Known {
    fn classes(&self) -> usize {
        3
    }

    fn labels(&self, _: Set) -> &[i32] {
        &[0, 1]
    }

    fn see(&mut self, set: Set) -> metatape::Result<Predictions> {
        Ok(match set {
            Set::Train => self.train.clone(),
            Set::Meta => self.meta.clone(),
            Set::Test => self.test.clone(),
        })
    }
}

/// A network that gets these training samples right, and takes the two test images for these
/// classes.
fn known(hits: [f64; 4], test: [usize; 2]) -> Known {
    let one_hot = |class: &usize| (0..3).map(|k| if k == *class { 2.0 } else { -1.0 }).collect::<Vec<f64>>();
    let seen = |hits: &[f64], logits: Vec<f64>| Predictions { losses: vec![], hits: hits.to_vec(), logits };
    Known {
        train: seen(&hits, vec![]),
        meta: seen(&[], vec![0.0, 3f64.ln(), 0.0, 0.0, 0.0, 0.0]),
        test: seen(&[], test.iter().flat_map(one_hot).collect()),
    }
}

#[test]
fn adaboost_s_rounds_vote_together() {
    let (scheme, mut memory) = (AdaBoost { rounds: 3 }, Memory::new());
    let stages: &dyn Stages = scheme.stages().unwrap();
    assert_eq!((stages.count(), stages.steps()), (3, 1));
    assert_ne!(stages.seed(7, 1), stages.seed(7, 2));
    // ε = 1/4: α = ln 3 + ln 2; weights 2/3·(1, 1, 1, 6)/1.5 with mean 1.
    stages.next(&mut memory, &mut known([1.0, 1.0, 1.0, 0.0], [0, 1])).unwrap();
    for (got, want) in memory.get("sample_weights").iter().zip([4.0, 4.0, 4.0, 24.0].map(|w| w / 9.0)) {
        assert!((got - want).abs() < 1e-12);
    }
    // ε = (4/9)/4 = 1/9: α = ln 8 + ln 2. The weights of the wrong sample times 16: (64, 4, 4,
    // 24)/9, mean 24/9.
    stages.next(&mut memory, &mut known([0.0, 1.0, 1.0, 1.0], [2, 1])).unwrap();
    for (got, want) in memory.get("sample_weights").iter().zip([64.0, 4.0, 4.0, 24.0].map(|w| w / 24.0)) {
        assert!((got - want).abs() < 1e-12);
    }
    // ε = 4/96 = 1/24: α = ln 23 + ln 2. First image: 0 by round 1, 2 by round 2, 0 by round 3.
    let mut last = known([1.0, 0.0, 1.0, 1.0], [0, 2]);
    let votes = stages.scores(&memory, last.test.logits.clone(), &mut last).unwrap();
    let want = [6f64.ln() + 46f64.ln(), 0.0, 16f64.ln(), 0.0, 6f64.ln() + 16f64.ln(), 46f64.ln()];
    for (got, want) in votes.iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{votes:?}");
    }
    // Looking at the votes of the last round changes nothing.
    assert!(memory.get("votes")[0] < 2.0);
}

#[test]
fn glc_hands_its_noise_matrix_on() {
    let (scheme, mut memory) = (Glc { sizes: [4, 2] }, Memory::new());
    let stages = scheme.stages().unwrap();
    assert_eq!((stages.count(), stages.steps(), stages.seed(7, 1)), (2, 2, 7));
    let mut network = known([1.0; 4], [0, 2]);
    stages.next(&mut memory, &mut network).unwrap();
    // Softmax of (0, ln 3, 0) is (0.2, 0.6, 0.2), and the class without images keeps its label.
    let want = [0.2, 0.6, 0.2, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 1.0];
    let given =
        scheme.inputs(&Moment { step: 0, steps: 1, epoch: 0, batch: 4, positions: &[], memory: &memory });
    assert_eq!(given[0].0, "scheme.transition");
    for (got, want) in given[0].1.iter().zip(want) {
        assert!((got - want).abs() < 3e-6, "{given:?}");
    }
    let logits = network.test.logits.clone();
    assert_eq!(stages.scores(&memory, logits.clone(), &mut network).unwrap(), logits);
}

#[test]
fn classes_are_grouped_by_ratios_of_their_sizes() {
    // A ratio of 100 in three spans of 100^(1/3) = 4.64: down to 193.9, down to 41.8, the rest.
    let tail = [900, 539, 323, 193, 116, 69, 41, 25, 15, 9];
    assert_eq!(class_groups(&tail), [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
    // No order of classes is taken for granted; one without samples counts as one.
    assert_eq!(class_groups(&[8, 1000, 100, 0]), [2, 0, 0, 2]);
    // Sizes that differ by chance are one group.
    assert_eq!(class_groups(&[905, 880, 912, 700]), [0; 4]);
    assert_eq!(class_groups(&[1000, 400, 240]), [0, 1, 2]);
}
