//! What has gone wrong in a training that came to its end, and what to change: from its history
//! alone.

use super::config::Config;
use super::history::{EpochRow, History};
use super::method::Method;
use crate::words::exact;

/// So many times `ln(classes)`, the loss of a network that knows nothing, is a loss that diverges.
const FAR: f64 = 3.0;
/// A curve that stays within this is flat.
const FLAT: f64 = 0.02;
/// Up to this loss; few samples have a larger one.
const LARGEST_LOSS: f64 = 6.0;
/// An accuracy within so many standard errors of chance is no better than chance.
const ERRORS: f64 = 3.0;

/// Sentences about one method's training, each with what to change; none if all is well. Each
/// begins as it would behind the method's name and a colon.
///
/// Looked at are the losses of all epochs, and at the end the test accuracy and, of a method with
/// a weight net, V: whether it is the same for all losses, and whether labels that are known to be
/// wrong weigh more than the others.
pub fn warnings(method: Method, config: &Config, history: &History) -> Vec<String> {
    if history.confusion.is_empty() {
        return Vec::new();
    }
    let learned = method.is_meta();
    let all = [
        diverges(config, history),
        at_chance(config, history),
        learned.then(|| flat(method, config, history)).flatten(),
        learned.then(|| upside_down(history)).flatten(),
    ];
    all.into_iter().flatten().collect()
}

/// Epochs in a row, two or those up to the last, whose loss is far above that of a network that
/// knows nothing. With many wrong labels it is high also where a sure network is right; so the
/// loss on the test set must be above `ln(classes)` as well.
fn diverges(config: &Config, history: &History) -> Option<String> {
    let ignorant = (history.confusion.len() as f64).ln();
    let far = |row: &EpochRow| row.train_loss > FAR * ignorant && row.test_loss > ignorant;
    let runs = history.rows.chunk_by(|a, b| far(a) == far(b)).filter(|run| far(&run[0]));
    let last = history.rows.last()?.epoch;
    let run = runs.into_iter().find(|run| run.len() > 1 || run[0].epoch == last)?;
    let times = run.iter().map(|row| row.train_loss / ignorant).fold(0.0, f64::max);
    let (first, end) = (run[0].epoch, run[run.len() - 1].epoch);
    let when = match (first == end, end == last) {
        (true, _) => format!("in epoch {end}"),
        (false, true) => format!("since epoch {first}"),
        (false, false) => format!("from epoch {first} to {end}"),
    };
    Some(format!(
        "the training loss is up to {} times ln(classes) {when}: it diverges; train again with --lr {}, \
         or with --clip-grad 1",
        short(times),
        short(config.lr / 10.0)
    ))
}

/// An accuracy that guessing has, too: 1/classes, or one class for all samples.
fn at_chance(config: &Config, history: &History) -> Option<String> {
    let (classes, accuracy) = (history.confusion.len(), history.final_accuracy()?);
    let tested = history.confusion.iter().flatten().sum::<u32>();
    let chance = 1.0 / classes as f64;
    let error = (chance * (1.0 - chance) / f64::from(tested)).sqrt();
    let predicted = |class: usize| history.confusion.iter().any(|row| row[class] > 0);
    let guessed = (0..classes).filter(|class| predicted(*class)).count() <= 1;
    (guessed || accuracy / 100.0 <= chance + ERRORS * error).then(|| {
        format!(
            "the test accuracy at the end, {accuracy:.2}%, is no better than chance ({classes} classes, \
             {tested} test samples); train again with --lr {}, or with more than --epochs {}",
            short(config.lr / 10.0),
            config.epochs
        )
    })
}

/// A learned curve, or all of a class-aware scheme, that is the same for all losses.
fn flat(method: Method, config: &Config, history: &History) -> Option<String> {
    let picture = history.pictures.last().filter(|picture| picture.epoch > 0)?;
    let losses: Vec<f64> = picture.curve.iter().map(|point| point.0).collect();
    let main = picture.curve.iter().map(|point| point.1).collect();
    let curves = match &picture.groups[..] {
        [] => vec![main],
        groups => groups.iter().map(|group| group.1.clone()).collect(),
    };
    let ends = |curve: &Vec<f64>| {
        let seen = losses.iter().zip(curve).filter(|(loss, _)| **loss <= LARGEST_LOSS);
        seen.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, v)| (low.min(*v), high.max(*v)))
    };
    let curves: Vec<(f64, f64)> = curves.iter().map(ends).collect();
    if !curves.iter().all(|(low, high)| high - low <= FLAT) {
        return None;
    }
    let (low, high) = *curves.first()?;
    // It doubts nobody unless shown that labels are wrong.
    let wrong = history.rows.last().is_some_and(|row| row.mean_weight_corrupted.is_some());
    if method == Method::MwNetSoft && low > 1.0 - FLAT {
        return wrong.then(|| {
            format!(
                "it doubts no label, though some are known to be wrong; train again with --lr {}, or with more \
                 than --epochs {}",
                short(config.lr / 10.0),
                config.epochs
            )
        });
    }
    let rate = config.weight_net_rule(method).1;
    // At an end of its range V has hardly a slope left to learn by.
    let change = match low > 1.0 - FLAT || high < FLAT {
        true => {
            format!("it ran to the end of its range; train again with --weight-net-lr {}", short(rate / 10.0))
        }
        false => format!(
            "train again with --weight-net-lr {}, or with more than --epochs {}",
            short(rate * 10.0),
            config.epochs
        ),
    };
    Some(format!(
        "V has learned nothing: it is {low:.3} to {high:.3} for all losses from 0 to {LARGEST_LOSS}; {change}"
    ))
}

/// Weights that are larger where labels are known to be wrong, by more than a flat curve's.
fn upside_down(history: &History) -> Option<String> {
    let row = history.rows.last()?;
    let (clean, wrong) = (row.mean_weight_clean?, row.mean_weight_corrupted?);
    (wrong > clean * (1.0 + FLAT)).then(|| {
        format!(
            "samples with a wrong label have a mean weight of {wrong:.3}, those with the right one {clean:.3}: V is upside \
             down; see that the meta set's labels are right, and train again with a larger --meta-size or --epochs"
        )
    })
}

/// A number with two digits.
fn short(value: f64) -> String {
    exact(format!("{value:.1e}").parse().unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::super::history::WeightPicture;
    use super::*;

    /// Three classes of ten test samples each, of which so many are right, and one row for each
    /// pair of losses, training and test.
    fn history(right: u32, losses: &[[f64; 2]]) -> History {
        let row = |(at, loss): (usize, &[f64; 2])| EpochRow {
            epoch: at + 1,
            method: "mwnet".into(),
            lr: 0.05,
            train_loss: loss[0],
            train_accuracy: 50.0,
            meta_loss: None,
            test_loss: loss[1],
            test_accuracy: 10.0 * f64::from(right),
            mean_weight: Some(0.5),
            mean_weight_clean: Some(0.8),
            mean_weight_corrupted: Some(0.2),
            steps_per_second: 1.0,
            seconds: 1.0,
        };
        let confusion = (0..3).map(|class| {
            let mut row = vec![(10 - right) / 2; 3];
            row[class] = right;
            row
        });
        History {
            rows: losses.iter().enumerate().map(row).collect(),
            confusion: confusion.collect(),
            pictures: vec![picture(3, |loss| 0.9 - loss / 10.0)],
            by_loss: Vec::new(),
        }
    }

    fn picture(epoch: usize, v: impl Fn(f64) -> f64) -> WeightPicture {
        let curve = (0..=16).map(|i| f64::from(i) / 2.0).map(|loss| (loss, v(loss))).collect();
        WeightPicture { epoch, curve, groups: Vec::new(), losses: Vec::new(), weights: Vec::new() }
    }

    const GOOD: [[f64; 2]; 3] = [[1.0, 0.9], [0.8, 0.7], [0.7, 0.6]];

    fn of(method: Method, history: &History) -> Vec<String> {
        warnings(method, &Config::default(), history)
    }

    /// That there is one warning, with these parts.
    fn one(history: &History, parts: &[&str]) {
        let found = of(Method::MwNet, history);
        assert!(found.len() == 1 && parts.iter().all(|part| found[0].contains(part)), "{found:?}");
    }

    #[test]
    fn a_good_training_has_none() {
        assert_eq!(of(Method::MwNet, &history(8, &GOOD)), [""; 0]);
        assert_eq!(of(Method::MwNet, &History::default()), [""; 0]);
    }

    #[test]
    fn losses_far_above_ln_classes() {
        let (far, near) = ([33.0, 5.0], [1.0, 0.9]);
        one(&history(8, &[near, far, far]), &["30 times ln(classes) since epoch 2", "--lr 0.005"]);
        one(&history(8, &[far, far, near]), &["from epoch 1 to 2"]);
        one(&history(8, &[near, near, far]), &["in epoch 3"]);
        assert_eq!(of(Method::MwNet, &history(8, &[near, far, near])), [""; 0]);
        // Just below three times ln 3.
        assert_eq!(of(Method::MwNet, &history(8, &[[3.29, 5.0]; 3])), [""; 0]);
        one(&history(8, &[[3.30, 5.0]; 3]), &["3 times"]);
        // Sure, right, and told otherwise by wrong labels.
        assert_eq!(of(Method::MwNet, &history(8, &[[5.0, 0.5]; 3])), [""; 0]);
    }

    #[test]
    fn accuracy_at_chance() {
        // A third and three errors of 8.6 points each.
        let mut chance = history(4, &GOOD);
        one(&chance, &["40.00%", "3 classes, 30 test samples", "--lr 0.005", "--epochs 20"]);
        chance.rows[2].test_accuracy = 59.0;
        one(&chance, &["59.00%"]);
        chance.rows[2].test_accuracy = 60.0;
        assert_eq!(of(Method::Uniform, &chance), [""; 0]);
        // One class for all, which are most of the test.
        chance.rows[2].test_accuracy = 90.0;
        chance.confusion = vec![vec![90, 0, 0], vec![5, 0, 0], vec![5, 0, 0]];
        one(&chance, &["90.00%", "no better than chance"]);
    }

    #[test]
    fn a_curve_that_is_flat() {
        let mut flat = history(8, &GOOD);
        // What lies above 6 does not count.
        flat.pictures = vec![picture(0, |loss| loss), picture(3, |loss| if loss > 6.0 { 0.0 } else { 0.5 })];
        one(&flat, &["0.500 to 0.500", "--weight-net-lr 0.02", "--epochs 20"]);
        assert_eq!(of(Method::Gce, &flat), [""; 0]);
        flat.pictures = vec![picture(3, |_| 1.0)];
        one(&flat, &["1.000", "--weight-net-lr 0.0002"]);
        flat.pictures = vec![picture(3, |loss| 0.5 - 0.004 * loss)];
        assert_eq!(of(Method::MwNet, &flat), [""; 0]);
        // One group of classes has learned.
        let mut groups = picture(3, |_| 0.5);
        groups.groups = vec![("large".into(), vec![0.5; 17]), ("small".into(), vec![0.7; 17])];
        flat.pictures = vec![groups.clone()];
        one(&flat, &["V has learned nothing"]);
        groups.groups[1].1[0] = 0.6;
        flat.pictures = vec![groups];
        assert_eq!(of(Method::CmwNet, &flat), [""; 0]);
    }

    #[test]
    fn weights_that_are_larger_on_wrong_labels() {
        let mut rises = history(8, &GOOD);
        rises.rows[2].mean_weight_corrupted = Some(0.817);
        one(&rises, &["0.817", "0.800", "upside down", "--meta-size"]);
        assert_eq!(of(Method::Focal, &rises), [""; 0]);
        rises.rows[2].mean_weight_corrupted = Some(0.815);
        assert_eq!(of(Method::MwNet, &rises), [""; 0]);
    }
}
