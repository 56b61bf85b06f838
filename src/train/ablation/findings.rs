//! What the cells say together, in numbers.

use serde::Serialize;
use serde_json::json;

use super::arm::meta_size;
use super::pictures;
use super::variant::Variant;
use crate::error::Result;
use crate::train::report::{Page, Table};
use crate::train::statistics::{Difference, Spread};
use crate::train::study::{
    ArmSummary, Cell, Plan, Probe, Study, differences, ended, first_warnings, warnings,
};

/// One variant over all seeds. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The variant.
    #[serde(skip)]
    pub name: Variant,
    /// What it has reached.
    #[serde(flatten)]
    pub arm: ArmSummary,
    /// What it changes.
    pub meaning: String,
    /// Images that meta batches were drawn from.
    pub meta_images: usize,
    /// Final accuracy less the published method's, seed by seed.
    pub difference: Option<Difference>,
    /// Whether that is beyond the spread.
    pub beyond_spread: Option<bool>,
    /// Final accuracy less uniform weights', seed by seed.
    pub gain: Option<Difference>,
    /// Between its hypergradient and the exact one, the mean over training.
    pub cosine_mean: Option<f64>,
    /// Over seeds.
    pub cosine_std: Option<f64>,
}

/// The file of all cosines.
pub(super) const COSINES: &str = "cosines.csv";

/// What a study found.
pub struct Findings<'a> {
    /// One row a variant, in the study's order.
    pub rows: Vec<Row>,
    /// The cosine between the exact hypergradients on two clean meta batches: what batches alone
    /// do.
    pub other_batch: Option<Spread>,
    pub(super) plan: &'a Plan<Variant>,
    cells: &'a [Cell],
}

impl<'a> Findings<'a> {
    /// From all cells of a study.
    pub fn new(plan: &'a Plan<Variant>, cells: &'a [Cell]) -> Findings<'a> {
        let mut found = Findings { rows: Vec::new(), other_batch: None, plan, cells };
        let row = |variant: &Variant| {
            let name = variant.to_string();
            let against = |other| if *variant == other { None } else { found.against(*variant, other) };
            let cosines: Vec<f64> = ended(&name, cells).filter_map(Cell::mean_cosine).collect();
            let (difference, cosines) = (against(Variant::Published), Spread::of(&cosines));
            Row {
                name: *variant,
                arm: ArmSummary::new(&name, cells),
                meaning: variant.meaning(),
                meta_images: ended(&name, cells).map(|c| c.meta_images).max().unwrap_or(0),
                difference,
                beyond_spread: difference.and_then(|d| d.beyond_spread()),
                gain: against(Variant::Uniform),
                cosine_mean: cosines.map(|s| s.mean),
                cosine_std: cosines.and_then(|s| s.std),
            }
        };
        let rows = plan.arms.iter().map(row).collect();
        let other: Vec<f64> = cells.iter().filter_map(|c| Probe::mean(&c.other_batch)).collect();
        (found.rows, found.other_batch) = (rows, Spread::of(&other));
        found
    }

    pub(super) fn row(&self, variant: Variant) -> Option<&Row> {
        self.rows.iter().find(|r| r.name == variant)
    }

    /// Final accuracies less those of another variant, seed by seed.
    pub(super) fn against(&self, variant: Variant, other: Variant) -> Option<Difference> {
        let tested = |cell: &Cell| cell.history.confusion.iter().flatten().sum::<u32>();
        let images = self.cells.iter().map(tested).max().unwrap_or(0).max(1);
        let differences = differences(&variant.to_string(), &other.to_string(), self.cells);
        Difference::of(&differences, 100.0 / f64::from(images))
    }

    /// Images of the full meta set.
    pub(super) fn meta_size(&self) -> usize {
        meta_size(&self.plan.config)
    }

    /// The clean set of n images.
    pub(super) fn clean(&self, n: usize) -> Variant {
        if n == self.meta_size() { Variant::Published } else { Variant::Clean(n) }
    }

    /// Writes the study's tables, its summary and its pictures.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, study: &Study<Variant>) -> Result<()> {
        let (cells, config) = (self.cells, &self.plan.config);
        let cosines = cells.iter().flat_map(|cell| {
            let own = cell.cosines.iter().map(|probe| (&cell.arm[..], probe));
            let other = cell.other_batch.iter().map(|probe| ("other-clean-batch", probe));
            own.chain(other).map(|(name, p)| (name, cell.seed, p.step, p.epoch, p.cosine))
        });
        study.write_summary(&json!({
            "dataset": config.dataset.to_string(),
            "noise": config.noise.to_string(),
            "model": config.model,
            "epochs": config.epochs,
            "seeds": self.plan.seeds.len(),
            "variants": self.rows,
            "other_clean_batch_cosine": self.other_batch,
            "conclusions": self.conclusions(),
            "warnings": warnings(cells),
        }))?;
        study.write_tables(cells)?;
        study.write_table(COSINES, "variant,seed,step,epoch,cosine", cosines)?;
        let stems = pictures::draw(study, cells, self)?;
        self.report(study, stems)
    }

    /// The page of the study.
    fn report(&self, study: &Study<Variant>, stems: Vec<String>) -> Result<()> {
        let config = &self.plan.config;
        let title = format!("What the method needs: {} on {}", config.model, config.dataset);
        let account = self.cells.iter().take(1).flat_map(|cell| cell.account.iter().cloned());
        let account = account.chain([self.conclusions()]).collect();
        let mut page = Page::new(title, account, config);
        page.warnings = first_warnings(self.cells);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value: f64| format!("{value:.digits$}"))
        };
        let row = |row: &Row| {
            vec![
                row.name.to_string(),
                number(row.arm.final_mean, 2),
                number(row.arm.final_std, 2),
                row.difference.map_or("-".to_owned(), |difference| difference.to_string()),
                number(row.cosine_mean, 3),
                number(row.arm.mean_weight_clean, 3),
                number(row.arm.mean_weight_corrupted, 3),
            ]
        };
        let heading = "variant,final %,± sd,against published,cosine,V clean,V wrong";
        let meanings = self.rows.iter().map(|row| format!("{}: {}", row.name, row.meaning));
        page.tables.push(Table {
            title: "Variants".into(),
            heading: heading.split(',').map(str::to_owned).collect(),
            rows: self.rows.iter().map(row).collect(),
            notes: meanings.collect(),
        });
        page.figures(&study.out, stems)?;
        page.write(&study.out)
    }
}
