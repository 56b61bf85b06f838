//! One page with all of a run or a study: a file that opens from disk and asks no network.

use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use minijinja::{Environment, context};
use serde::Serialize;
use serde_json::Value;

use super::config::Config;
use super::files::write_atomically;
use super::history::{History, Summary};
use super::pictures;
use super::plots::READABLE;
use super::prepared::Prepared;
use super::run::Run;
use super::samples::{Finding, SampleReport, ranking};
use crate::data::Samples;
use crate::error::{Error, Result};
use crate::file;
use crate::words::{counted, number};

/// The page's file.
pub(in crate::train) const FILE: &str = "report.html";
/// So many suspects are shown.
const SUSPECTS: usize = 100;
/// The frame of the curve, in the page's points.
const WIDE: f64 = 580.0;
const HIGH: f64 = 280.0;

/// A table of texts.
#[derive(Default, Serialize)]
pub(in crate::train) struct Table {
    pub title: String,
    pub heading: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub notes: Vec<String>,
}

/// What a page holds.
#[derive(Default, Serialize)]
pub(in crate::train) struct Page {
    pub title: String,
    /// What was done, a paragraph each.
    pub account: Vec<String>,
    /// What went wrong, a sentence each.
    pub warnings: Vec<String>,
    pub tables: Vec<Table>,
    figures: Vec<Figure>,
    frames: Vec<Frame>,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    columns: Vec<Column>,
    suspects: Vec<Suspect>,
    thumbnails: bool,
    samples: usize,
    settings: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Figure {
    name: String,
    caption: String,
    /// In base 64.
    svg: String,
}

/// A curve of the weight.
#[derive(Serialize)]
struct Frame {
    epoch: usize,
    path: String,
}

#[derive(Serialize)]
struct Tick {
    at: f64,
    text: String,
}

#[derive(Serialize)]
struct Column {
    name: &'static str,
    text: bool,
}

#[derive(Serialize)]
struct Suspect {
    /// A PNG in base 64.
    image: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    /// What rows are sorted by.
    value: String,
    shown: String,
    text: bool,
    wrong: bool,
}

impl Page {
    /// A page with the settings of a run or a study.
    pub fn new(title: String, account: Vec<String>, config: &Config) -> Page {
        let fields = serde_json::to_value(config).unwrap_or_default();
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let fields = fields.as_object().into_iter().flatten();
        let settings = fields.map(|(name, value)| (name.clone(), shown(value))).collect();
        Page { title, account, settings, ..Page::default() }
    }

    /// Adds a picture that lies in the folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn figure(&mut self, out: &Path, stem: &str, caption: impl Into<String>) -> Result<()> {
        let path = out.join(format!("{stem}.svg"));
        let svg = file::read(&path, "read the picture")?;
        let (name, caption) = (stem.to_owned(), caption.into());
        self.figures.push(Figure { name, caption, svg: BASE64_STANDARD.encode(svg) });
        Ok(())
    }

    /// Adds all pictures of these that lie in the folder, with what they are called as captions.
    ///
    /// # Errors
    /// As [`Page::figure`].
    pub fn figures(&mut self, out: &Path, stems: impl IntoIterator<Item = String>) -> Result<()> {
        for stem in stems {
            if out.join(format!("{stem}.svg")).exists() {
                self.figure(out, &stem, stem.replace('_', " "))?;
            }
        }
        Ok(())
    }

    /// Writes the page.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        let broken = |e: minijinja::Error| Error::Program(format!("{FILE} cannot be put together: {e:#}"));
        let mut templates = Environment::new();
        templates.add_template(FILE, include_str!("report.html")).map_err(broken)?;
        let template = templates.get_template(FILE).map_err(broken)?;
        let version = env!("CARGO_PKG_VERSION");
        let page = minijinja::Value::from_serialize(self);
        let text = template.render(context! { version, ..page }).map_err(broken)?;
        write_atomically(&out.join(FILE), text.as_bytes())
    }

    /// The weight's curve over the epochs.
    fn curves(&mut self, history: &History) {
        let all = || history.pictures.iter().flat_map(|picture| &picture.curve);
        let end = all().map(|point| point.0).fold(0.0, f64::max);
        let top = all().map(|point| point.1).filter(|weight| weight.is_finite()).fold(1.0, f64::max);
        let path = |curve: &[(f64, f64)]| {
            let points = curve.iter().filter(|point| point.1.is_finite());
            let points = points.enumerate().map(|(i, (loss, weight))| {
                let (x, y) = (loss / end * WIDE, HIGH - weight / top * HIGH);
                format!("{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" })
            });
            points.collect::<String>()
        };
        self.frames =
            history.pictures.iter().map(|p| Frame { epoch: p.epoch, path: path(&p.curve) }).collect();
        let ticks = |span: f64, place: &dyn Fn(f64) -> f64| {
            (0..=4)
                .map(|i| span * f64::from(i) / 4.0)
                .map(|v| Tick { at: place(v), text: number(v, 2) })
                .collect()
        };
        self.x_ticks = ticks(end, &|v| v / end * WIDE);
        self.y_ticks = ticks(top, &|v| HIGH - v / top * HIGH);
    }

    /// The samples whose labels are the most suspicious.
    fn suspects(&mut self, data: &Prepared, samples: &[SampleReport]) -> Result<()> {
        let known = data.split.train.known;
        let names = [
            "sample",
            "given label",
            "predicted",
            "probability of the given",
            "mean loss",
            "mean weight",
            "score",
        ];
        let text = |name: &&str| matches!(*name, "sample" | "given label" | "predicted" | "true label");
        let all = names.into_iter().chain(known.then_some("true label"));
        self.columns = all.map(|name| Column { text: text(&name), name }).collect();
        self.samples = samples.len();
        self.thumbnails = matches!(data.dataset.samples, Samples::Bytes(_));
        for place in ranking(samples).into_iter().take(SUSPECTS) {
            let row = &samples[place];
            let text = |shown: &str, wrong: bool| {
                let (value, shown) = (shown.to_owned(), shown.to_owned());
                Cell { value, shown, text: true, wrong }
            };
            let figure = |value: Option<f64>| {
                let shown = value.map_or("-".to_owned(), |value| number(value, 3));
                Cell {
                    value: value.map_or(String::new(), |v| v.to_string()),
                    shown,
                    text: false,
                    wrong: false,
                }
            };
            let wrong = row.true_label.as_ref().is_some_and(|right| *right != row.given_label);
            let mut cells = vec![
                text(&row.sample, false),
                text(&row.given_label, wrong),
                text(&row.predicted_label, false),
                figure(Some(row.probability)),
                figure(row.loss),
                figure(row.weight),
                figure(Some(row.score)),
            ];
            cells.extend(row.true_label.as_deref().map(|label| text(label, false)));
            let index = data.split.train.indices[place];
            self.suspects.push(Suspect { image: thumbnail(data, index)?, cells });
        }
        Ok(())
    }
}

/// An image as a PNG in base 64, not larger than 96 pixels; nothing of features.
fn thumbnail(data: &Prepared, index: u32) -> Result<String> {
    let (pixels, [h, w, c]) = (
        data.dataset.image(index).to_vec(),
        match data.shape()[..] {
            [h, w, c] => [h as u32, w as u32, c as u32],
            _ => return Ok(String::new()),
        },
    );
    let image = match c {
        1 => GrayImage::from_raw(w, h, pixels).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(w, h, pixels).map(DynamicImage::ImageRgb8),
    };
    let image = image.ok_or_else(|| Error::Program("an image has as many pixels as its shape".into()))?;
    let image = if h.max(w) > 96 { image.thumbnail(96, 96) } else { image };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::Program(format!("a thumbnail: {e}")))?;
    Ok(BASE64_STANDARD.encode(png.into_inner()))
}

/// The noise that there is, beside that which the network takes it for.
fn noise(finding: &Finding, names: &[String]) -> Table {
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let both = finding.noise_matrix.iter().zip(&finding.estimated_noise_matrix);
    let row = |(name, (true_shares, estimated)): (&String, (&Vec<f64>, &Vec<f64>))| {
        let cells =
            true_shares.iter().zip(estimated).map(|(a, b)| format!("{} / {}", percent(*a), percent(*b)));
        std::iter::once(name.clone()).chain(cells).collect()
    };
    Table {
        title: "Which labels a class was given (%)".into(),
        heading: std::iter::once("class".to_owned()).chain(names.iter().cloned()).collect(),
        rows: names.iter().zip(both).map(row).collect(),
        notes: vec![
            "Of the samples of a class, the share that was given each label. The second figure takes the class that the network \
             predicts for the true one, as one must where the truth is not known."
                .into(),
        ],
    }
}

/// The page of a run that has come to its end.
///
/// # Errors
/// If it cannot be written.
pub(super) fn of_run(run: &Run, summary: &Summary) -> Result<()> {
    let (data, config) = (&run.data, &run.data.config);
    let title = format!("{} with {} on {}", config.model, config.method, data.dataset.name);
    let machine = format!(
        "{}, seed {}; {} on {}",
        counted(config.epochs, "epoch"),
        config.seed,
        counted(summary.steps_per_epoch as usize * summary.epochs, "step"),
        run.machine()
    );
    let account = data.account().into_iter().chain([machine]).collect();
    let mut page = Page::new(title, account, config);
    page.warnings.clone_from(&summary.warnings);
    let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}%"));
    let row = |(method, history): (_, &History)| {
        let balanced = history.balanced_accuracy();
        vec![
            format!("{method}"),
            percent(history.final_accuracy()),
            percent(history.best_accuracy()),
            percent(balanced),
        ]
    };
    let methods = config.methods().into_iter().map(|m| m.to_string());
    let mut notes = Vec::new();
    if let Some(all) = summary.mean_weight {
        notes.push(match (summary.mean_weight_clean, summary.mean_weight_corrupted) {
            (Some(clean), Some(wrong)) => format!(
                "Mean weight of samples with the right label {clean:.3}, with a wrong one {wrong:.3}."
            ),
            _ => format!("Mean weight of samples {all:.3}."),
        });
    }
    if let Some(finding) = &summary.finding {
        notes.push(format!(
            "Of the {} most suspicious samples {:.1}% have a wrong label; area under the ROC curve {:.4}.",
            finding.wrong,
            100.0 * finding.precision,
            finding.auc
        ));
    }
    page.tables.push(Table {
        title: "Test accuracy".into(),
        heading: ["method", "final", "best epoch", "mean over classes"].map(str::to_owned).to_vec(),
        rows: methods.zip(run.histories()).map(row).collect(),
        notes,
    });
    if let Some(finding) = summary.finding.as_ref().filter(|_| data.dataset.classes() <= READABLE) {
        page.tables.push(noise(finding, &data.dataset.class_names));
    }
    let captions = [
        "Test accuracy over the epochs",
        "Losses over the epochs",
        "Weight and losses",
        "Weights at the end",
        "Test accuracy of each class",
        "Which class is taken for which",
    ];
    for (stem, caption) in pictures::STEMS.into_iter().zip(captions) {
        // A method without weights has no pictures of them.
        if run.out.join(format!("{stem}.svg")).exists() {
            page.figure(&run.out, stem, caption)?;
        }
    }
    page.curves(&run.histories()[0]);
    page.suspects(data, run.samples())?;
    page.write(&run.out)
}
