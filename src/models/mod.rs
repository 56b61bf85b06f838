//! Networks as files: layers in order, in TOML.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `mod.rs` | [`ModelFile`]: from text to layers, their names and places |
//! | `layer.rs` | the kinds of layers, and how each is recorded |
//!
//! ```toml
//! init = "kaiming" # of weights, where a layer does not say it; else "torch"
//! layers = [
//!     { conv = 16, size = 3 }, "batch-norm", "relu",
//!     { repeat = 3, layers = [
//!         { residual = [{ conv = 16, size = 3 }, "batch-norm", "relu", { conv = 16, size = 3 }] },
//!     ] },
//!     "global-avg-pool",
//!     { linear = "classes", name = "out" },
//! ]
//! ```
//!
//! A layer is a table with the kind's name and its number, or the name alone, a string, where
//! nothing is to be said. Fields in brackets may be left out.
//!
//! | layer | on | what it is |
//! |---|---|---|
//! | `conv = OUT, size = K, [stride, pad, groups, init, bias]` | images | stride 1, `pad` K/2 for odd K, 1 group; no bias, unless its first values are named |
//! | `linear = OUT, [init, bias]` | features | first values "torch" |
//! | `batch-norm` | both | over all axes but the last |
//! | `layer-norm [= AXES]` | both | each sample over its last 1, or so many, axes |
//! | `group-norm = GROUPS` | both | each sample over groups of channels |
//! | `dropout = P` | both | |
//! | `max-pool = K, [stride]` | images | stride K |
//! | `avg-pool = K` | images | windows side by side |
//! | `global-avg-pool`, `flatten` | images | give features |
//! | `relu`, `tanh`, `sigmoid`, `gelu`, `softplus`, `abs` | both | |
//! | `subsample = K, [channels]` | images | every K-th pixel, zero channels up to so many |
//! | `residual = [LAYERS], [before, shortcut]` | both | the sum of what `residual` and `shortcut`, lists of layers, make of what `before` makes of the input |
//! | `repeat = N, layers = [LAYERS]` | both | these N times, each with parameters of its own |
//!
//! Images are `[n,h,w,c]`, features `[n,d]`. OUT is a number or "classes", that of the data. First
//! values are "torch" (U(±1/√fan_in)), "kaiming", "kaiming-fan-out" or "zero". A layer with
//! parameters may have a `name`; others are numbered by kind (`conv1`, `conv2`, `fc1`, `bn1`,
//! `ln1`, `gn1`, `drop1`, `block1`), within a residual block from 1 again: `block2.conv1.weight`.

mod layer;

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::nn::{self, Forward, Model, SharedModel};
use crate::tape::Var;
use layer::{KINDS, Kind, Layer, record, samples};

/// The built-in files.
const BUILT_IN: [(&str, &str); nn::NAMES.len()] = [
    ("mlp", include_str!("mlp.toml")),
    ("lenet", include_str!("lenet.toml")),
    ("resnet32", include_str!("resnet32.toml")),
    ("wrn28-10", include_str!("wrn28-10.toml")),
];
/// A file that asks for more has a slip of the finger in its repeats.
const MOST_LAYERS: usize = 10_000;

/// A network as a file says it, for any number of classes.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// A built-in network's name, or the file's.
    pub name: String,
    /// The file's content.
    pub text: String,
    layers: Vec<Layer>,
}

/// What is at the top of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    layers: Vec<Value>,
    init: Option<Value>,
}

impl ModelFile {
    /// A built-in network.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is none of [`nn::NAMES`].
    pub fn built_in(name: &str) -> Result<ModelFile> {
        let found = BUILT_IN.iter().find(|built_in| built_in.0 == name);
        found.map_or_else(|| Err(nn::unknown(name)), |(name, text)| ModelFile::parse(name, text))
    }

    /// The file of a path that ends in `.toml`, or else a built-in network.
    ///
    /// # Errors
    /// As [`ModelFile::built_in`] and [`ModelFile::parse`]; if the file cannot be read.
    pub fn open(model: &str) -> Result<ModelFile> {
        if !model.ends_with(".toml") {
            return ModelFile::built_in(model);
        }
        let path = Path::new(model);
        let text = crate::file::read_text(path, "read")?;
        ModelFile::parse(&path.file_name().unwrap_or_default().to_string_lossy(), &text)
    }

    /// A network from the content of a file that is called `name`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the place and what is wrong there.
    pub fn parse(name: &str, text: &str) -> Result<ModelFile> {
        let table = Table::from_str(text).map_err(|e| {
            let before = text.bytes().take(e.span().map_or(0, |span| span.start));
            let line = 1 + before.filter(|byte| *byte == b'\n').count();
            Error::Usage(format!("{name}, line {line}: {}", e.message().replace('\n', ", ")))
        })?;
        let top: Top = table.try_into().map_err(|e| Error::Usage(format!("{name}: {}", sentence(&e))))?;
        let mut reader = Reader { file: name, init: top.init, names: HashMap::new(), layers: 0, owns: false };
        let layers = reader.list(top.layers, "layers", "", &mut HashMap::new())?;
        if !reader.owns {
            return Err(Error::Usage(format!(
                "{name}: no layer has parameters; give it a `linear` or a `conv`"
            )));
        }
        Ok(ModelFile { name: name.to_owned(), text: text.to_owned(), layers })
    }

    /// The network for data of so many classes.
    pub fn network(self, classes: usize) -> SharedModel {
        Box::new(Network { file: self, classes })
    }
}

/// A file with the number of classes.
struct Network {
    file: ModelFile,
    classes: usize,
}

impl Model for Network {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        let Network { file: ModelFile { name, layers, .. }, classes } = self;
        let logits = record(layers, f, x, *classes).map_err(|e| Error::shape(name, e.to_string()))?;
        match f.tape.shape(logits)[..] {
            [_, c] if c == *classes => Ok(logits),
            ref shape => Err(Error::shape(
                name,
                format!(
                    "its layers give {}, and logits [n, {classes}] are wanted; end with {{ linear = \"classes\" }}",
                    samples(shape)
                ),
            )),
        }
    }
}

/// What is known while a file is read.
struct Reader<'a> {
    file: &'a str,
    /// First values where a layer does not say them.
    init: Option<Value>,
    /// Of all layers, with the place of each.
    names: HashMap<String, String>,
    layers: usize,
    /// Whether one has parameters.
    owns: bool,
}

impl Reader<'_> {
    /// The layers of a list at `place` of the file, within the block `scope`, where so many of each
    /// kind have been numbered.
    fn list(
        &mut self,
        values: Vec<Value>,
        place: &str,
        scope: &str,
        numbers: &mut HashMap<&'static str, usize>,
    ) -> Result<Vec<Layer>> {
        if values.is_empty() {
            return self.bad(place, "there is no layer here");
        }
        let mut layers = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            let place = format!("{place}[{i}]");
            self.layers += 1;
            if self.layers > MOST_LAYERS {
                return self.bad(&place, &format!("there are more than {MOST_LAYERS} layers up to here"));
            }
            let ((word, short), mut table) = self.table(value, &place)?;
            let given = table.contains_key("name");
            let name = match table.remove("name") {
                Some(Value::String(name)) if is_name(&name) => name,
                Some(name) => {
                    return self
                        .bad(&place, &format!("{name} is no name; take letters, digits, `_` and `-`"));
                }
                None if short.is_empty() => String::new(),
                None => {
                    let number = numbers.entry(short).or_insert(0);
                    *number += 1;
                    format!("{short}{number}")
                }
            };
            let name = if name.is_empty() { name } else { format!("{scope}{name}") };
            if !short.is_empty()
                && let Some(other) = self.names.insert(name.clone(), place.clone())
            {
                // A number is never given twice: without a `name` here, the other has one.
                let what = match (given, other == place) {
                    (true, true) => format!("each repeat has a layer `{name}`; leave its `name` out"),
                    (true, false) => {
                        format!("`{name}` is the layer at {other} already; give this one another `name`")
                    }
                    (false, _) => format!(
                        "without a `name` it is `{name}`, as the layer at {other} is called; give that one another `name`"
                    ),
                };
                return self.bad(&place, &what);
            }
            self.owns |= !matches!(short, "" | "drop" | "block");
            let tagged = Table::from_iter([(word.to_owned(), Value::Table(table))]);
            let mut kind = Kind::deserialize(Value::Table(tagged))
                .or_else(|e| self.bad(&place, &format!("{word}: {}", sentence(&e))))?;
            let mut parts = [Vec::new(), Vec::new(), Vec::new()];
            match &mut kind {
                Kind::Repeat { repeat, layers: values } => {
                    let place = format!("{place}.layers");
                    for _ in 0..repeat.0 {
                        layers.extend(self.list(values.clone(), &place, scope, numbers)?);
                    }
                    continue;
                }
                Kind::Residual { before, residual, shortcut } => {
                    let (scope, mut numbers) = (format!("{name}."), HashMap::new());
                    let fields = [("before", before), ("residual", residual), ("shortcut", shortcut)];
                    for (part, (field, values)) in parts.iter_mut().zip(fields) {
                        let (values, place) = (std::mem::take(values), format!("{place}.{field}"));
                        if !values.is_empty() || field == "residual" {
                            *part = self.list(values, &place, &scope, &mut numbers)?;
                        }
                    }
                }
                _ => {}
            }
            layers.push(Layer { kind, word, place, name, parts });
        }
        Ok(layers)
    }

    /// A layer's kind and its fields.
    fn table(&self, value: Value, place: &str) -> Result<((&'static str, &'static str), Table)> {
        let mut table = match value {
            Value::String(word) => Table::from_iter([(word, Value::Table(Table::new()))]),
            Value::Table(table) => table,
            other => {
                let what = format!("{other} is no layer; write \"relu\" or {{ conv = 16, size = 3 }}");
                return self.bad(place, &what);
            }
        };
        let Some(&kind) = KINDS.iter().find(|kind| table.contains_key(kind.0)) else {
            let mut given: Vec<String> = table.keys().map(|key| format!("`{key}`")).collect();
            if given.is_empty() {
                given.push("`{}`".into());
            }
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.0).collect();
            let near = table.keys().map(|key| Error::nearest(key, known.iter().copied()));
            let near = near.max_by_key(String::len).unwrap_or_default();
            let (given, known) = (given.join(", "), known.join(", "));
            return self.bad(place, &format!("{given} is no kind of layer{near}; there are {known}"));
        };
        // Nothing is to be said.
        if table[kind.0].as_table().is_some_and(Table::is_empty) {
            table.remove(kind.0);
        }
        if let (Some(init), "conv" | "linear") = (&self.init, kind.0) {
            table.entry("init").or_insert_with(|| init.clone());
        }
        Ok((kind, table))
    }

    fn bad<T>(&self, place: &str, what: &str) -> Result<T> {
        Err(Error::Usage(format!("{}: {place}: {what}", self.file)))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// What is wrong, and in which field, in one line.
fn sentence(error: &toml::de::Error) -> String {
    let text = error.to_string().trim().replace('\n', " ");
    // "unknown field `a`, expected one of `b`, `c`", and then where.
    let mut names = error.message().split('`').skip(1).step_by(2);
    match names.next().filter(|_| error.message().starts_with("unknown ")) {
        Some(name) => text + &Error::nearest(name, names),
        None => text,
    }
}
