//! What a run has come to, from its histories.

use super::history::{History, Summary, mean_where};
use super::looking::SUMMARY_STRIDE;
use super::run::Run;
use super::warnings::warnings;

impl Run {
    /// What went wrong with each method.
    fn warnings(&self) -> Vec<String> {
        let methods = self.data.config.methods().into_iter().zip(&self.histories);
        let all = methods.map(|(method, history)| (method, warnings(method, &self.data.config, history)));
        all.flat_map(|(method, all)| all.into_iter().map(move |what| format!("{method}: {what}"))).collect()
    }

    pub(super) fn summary(&self) -> Summary {
        let (main, baseline) = (&self.histories[0], self.histories.get(1));
        let train = &self.data.split.train;
        let last = main.pictures.last();
        let row = main.rows.last();
        let mean = |flag| last.and_then(|p| mean_where(&p.weights, &train.corrupted, flag));
        let corrupted = train.corrupted.iter().filter(|c| **c).count();
        let meta_speed = |h: &History| {
            let (mut steps, mut seconds) = (0.0, 0.0);
            for row in &h.rows {
                steps += self.steps_per_epoch() as f64;
                seconds += self.steps_per_epoch() as f64 / row.steps_per_second;
            }
            steps / seconds
        };
        let thinned = |(name, values): &(String, Vec<f64>)| {
            (name.clone(), values.iter().step_by(SUMMARY_STRIDE).copied().collect())
        };
        let config = &self.data.config;
        Summary {
            method: config.method.to_string(),
            seed: config.seed,
            final_test_accuracy: main.final_accuracy().unwrap_or(f64::NAN),
            best_test_accuracy: main.best_accuracy().unwrap_or(f64::NAN),
            baseline_final_test_accuracy: baseline.and_then(History::final_accuracy),
            baseline_best_test_accuracy: baseline.and_then(History::best_accuracy),
            mean_weight: mean(None).or_else(|| row?.mean_weight),
            mean_weight_clean: mean(Some(false)).filter(|_| train.known).or_else(|| row?.mean_weight_clean),
            mean_weight_corrupted: mean(Some(true)).or_else(|| row?.mean_weight_corrupted),
            weight_curve: last
                .map(|p| p.curve.iter().step_by(SUMMARY_STRIDE).copied().collect())
                .unwrap_or_default(),
            weight_curves_by_group: last
                .map(|p| &p.groups[..])
                .unwrap_or_default()
                .iter()
                .map(thinned)
                .collect(),
            meta_steps_per_second: config.method.is_meta().then(|| meta_speed(main)),
            seconds: self.histories.iter().map(History::seconds).sum(),
            epochs: main.rows.len(),
            steps_per_epoch: self.steps_per_epoch(),
            train_samples: train.indices.len(),
            meta_samples: self.data.split.meta.indices.len(),
            finding: None,
            warnings: self.warnings(),
            corrupted_percent: train
                .known
                .then(|| 100.0 * corrupted as f64 / train.indices.len().max(1) as f64),
        }
    }
}
