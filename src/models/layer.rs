//! The kinds of layers that a file can have, and how each is recorded.

use std::fmt;

use serde::Deserialize;
use toml::Value;

use crate::error::{Error, Result};
use crate::nn::{Filters, Forward};
use crate::tape::{Init, Shape, Strided, Var, Window};

/// Numbers of a tensor: more than any machine holds, and far from where sizes would overflow.
const MOST_NUMBERS: usize = 1 << 40;
/// Larger counts in a file are slips of the finger.
const MOST: usize = 1_000_000;

/// All kinds, each with what its layers are called where the file gives no name; nothing for those
/// that own nothing.
pub(super) const KINDS: [(&str, &str); 19] = [
    ("conv", "conv"),
    ("linear", "fc"),
    ("batch-norm", "bn"),
    ("layer-norm", "ln"),
    ("group-norm", "gn"),
    ("dropout", "drop"),
    ("max-pool", ""),
    ("avg-pool", ""),
    ("global-avg-pool", ""),
    ("subsample", ""),
    ("flatten", ""),
    ("relu", ""),
    ("tanh", ""),
    ("sigmoid", ""),
    ("gelu", ""),
    ("softplus", ""),
    ("abs", ""),
    ("residual", "block"),
    ("repeat", ""),
];

/// What a layer does: its kind and fields, as the file has them. Fields of a kind's own name hold
/// the number that stands behind it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(super) enum Kind {
    Conv {
        conv: Width,
        size: Count,
        #[serde(default)]
        stride: Count,
        pad: Option<Count<0>>,
        #[serde(default)]
        groups: Count,
        #[serde(default)]
        init: Start,
        bias: Option<Start>,
    },
    Linear {
        linear: Width,
        #[serde(default)]
        init: Start,
        #[serde(default)]
        bias: Start,
    },
    BatchNorm {},
    LayerNorm {
        #[serde(default)]
        layer_norm: Count,
    },
    GroupNorm {
        group_norm: Count,
    },
    Dropout {
        dropout: f64,
    },
    MaxPool {
        max_pool: Count,
        stride: Option<Count>,
    },
    AvgPool {
        avg_pool: Count,
    },
    GlobalAvgPool {},
    Subsample {
        subsample: Count,
        channels: Option<Count>,
    },
    Flatten {},
    Relu {},
    Tanh {},
    Sigmoid {},
    Gelu {},
    Softplus {},
    Abs {},
    Residual {
        residual: Vec<Value>,
        #[serde(default)]
        before: Vec<Value>,
        #[serde(default)]
        shortcut: Vec<Value>,
    },
    Repeat {
        repeat: Count,
        layers: Vec<Value>,
    },
}

/// A whole number from `LEAST` to a million; 1 where none is given.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Count<const LEAST: usize = 1>(pub usize);

impl Default for Count {
    fn default() -> Count {
        Count(1)
    }
}

impl<const LEAST: usize> TryFrom<Value> for Count<LEAST> {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let count = value.as_integer().and_then(|n| usize::try_from(n).ok());
        count
            .filter(|n| (LEAST..=MOST).contains(n))
            .map(Count)
            .ok_or_else(|| format!("{value} is not a whole number from {LEAST} to {MOST}"))
    }
}

/// Channels or units of a layer's output; `None` is as many as the data have classes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Width(Option<usize>);

impl TryFrom<Value> for Width {
    type Error = String;

    fn try_from(value: Value) -> Result<Width, String> {
        if value.as_str() == Some("classes") {
            return Ok(Width(None));
        }
        Count::<1>::try_from(value)
            .map(|n| Width(Some(n.0)))
            .map_err(|e| format!("{e}, nor is it \"classes\""))
    }
}

/// First values.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Start {
    #[default]
    Torch,
    Kaiming,
    KaimingFanOut,
    Zero,
}

impl Start {
    fn init(self, [inputs, outputs]: [usize; 2]) -> Init {
        match self {
            Start::Torch => Init::torch(inputs),
            Start::Kaiming => Init::kaiming(inputs),
            Start::KaimingFanOut => Init::kaiming(outputs),
            Start::Zero => Init::Constant(0.0),
        }
    }
}

/// A layer, and its place in the file: `layers[3].residual[0]`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub kind: Kind,
    /// As in the file.
    pub word: &'static str,
    pub place: String,
    /// That of its parameters, with the names of the blocks that it is in; empty if there is none.
    pub name: String,
    /// A block's `before`, `residual` and `shortcut`.
    pub parts: [Vec<Layer>; 3],
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name[..] {
            "" => write!(f, "{} ({})", self.place, self.word),
            name => write!(f, "{} ({} `{name}`)", self.place, self.word),
        }
    }
}

/// Records layers one after the other.
pub(super) fn record(layers: &[Layer], f: &mut Forward, x: Var, classes: usize) -> Result<Var> {
    layers.iter().try_fold(x, |x, layer| layer.record(f, x, classes))
}

impl Layer {
    /// # Errors
    /// With the layer's place and name and its input's shape.
    fn record(&self, f: &mut Forward, x: Var, classes: usize) -> Result<Var> {
        let bad = |detail: String| Error::shape(self.to_string(), detail);
        if let Kind::Residual { .. } = self.kind {
            let [before, body, shortcut] = &self.parts;
            let x = record(before, f, x, classes)?;
            let y = record(body, f, x, classes)?;
            let skip = record(shortcut, f, x, classes)?;
            let (a, b) = (f.tape.shape(y).clone(), f.tape.shape(skip).clone());
            return match a == b {
                true => f.tape.add(y, skip),
                false => Err(bad(format!(
                    "its layers give {} and its shortcut {}; give it a `shortcut` with strides and channels that fit",
                    samples(&a),
                    samples(&b)
                ))),
            };
        }
        let shape = f.tape.shape_of(self.word, x)?;
        let y = self.kind.record(f, &self.name, x, &shape, classes);
        let y = y.and_then(|y| numbers(f.tape.shape(y)).map(|()| y));
        y.map_err(|e| bad(format!("on {}: {e}", samples(&shape))))
    }
}

/// A batch's shape, whatever the number of samples.
pub(super) fn samples(shape: &[usize]) -> String {
    let extents: String = shape.iter().skip(1).map(|extent| format!(", {extent}")).collect();
    format!("[n{extents}]")
}

fn refused<T>(sentence: String) -> Result<T> {
    Err(Error::Program(sentence))
}

/// Refuses tensors that are too large.
fn numbers(shape: &[usize]) -> Result<()> {
    let count = shape.iter().try_fold(1, |count: usize, extent| count.checked_mul(*extent));
    match count.filter(|count| *count <= MOST_NUMBERS) {
        Some(_) => Ok(()),
        None => refused(format!("a tensor {shape:?} has more numbers than any machine holds")),
    }
}

impl Kind {
    /// The layer `name` on `x`, of this shape.
    fn record(&self, f: &mut Forward, name: &str, x: Var, shape: &Shape, classes: usize) -> Result<Var> {
        let image = || match shape[..] {
            [_, h, w, c] => Ok([h, w, c]),
            _ => refused("images [n, h, w, c] are wanted".into()),
        };
        let fits = |[h, w, _]: [usize; 3], size: usize, pad: usize| match h.min(w) + 2 * pad < size {
            true => refused(format!("{size}x{size} pixels do not fit into the image")),
            false => Ok(()),
        };
        match *self {
            Kind::Conv { conv, size: Count(size), stride: Count(stride), pad, groups, init, bias } => {
                let (image, out) = (image()?, conv.0.unwrap_or(classes));
                let pad = match pad {
                    Some(Count(pad)) => pad,
                    None if size.is_multiple_of(2) => {
                        return refused(format!("filters of an even size, {size}, want their `pad`"));
                    }
                    None => size / 2,
                };
                fits(image, size, pad)?;
                let Count(groups) = groups;
                if !image[2].is_multiple_of(groups) || !out.is_multiple_of(groups) {
                    return refused(format!(
                        "{groups} groups must divide the {} channels and the {out} outputs",
                        image[2]
                    ));
                }
                numbers(&[size, size, image[2] / groups, out])?;
                // Each group is a convolution of its own.
                let fans = [image[2], out].map(|channels| size * size * (channels / groups));
                let filters = Filters { out, size, stride, pad, groups };
                let x = f.conv(name, x, filters, init.init(fans))?;
                bias.map_or(Ok(x), |bias| f.bias(name, x, bias.init(fans)))
            }
            Kind::Linear { linear, init, bias } => {
                let out = linear.0.unwrap_or(classes);
                let [_, inputs] = shape[..] else {
                    return refused(
                        "features [n, d] are wanted; put \"flatten\" or \"global-avg-pool\" before".into(),
                    );
                };
                numbers(&[inputs, out])?;
                f.linear_from(name, x, out, [init, bias].map(|start| start.init([inputs, out])))
            }
            Kind::BatchNorm {} => f.batch_norm(name, x),
            Kind::LayerNorm { layer_norm: Count(axes) } if axes < shape.len() => f.layer_norm(name, x, axes),
            Kind::LayerNorm { layer_norm: Count(axes) } => {
                refused(format!("a sample has {} axes, not {axes}", shape.len() - 1))
            }
            Kind::GroupNorm { group_norm: Count(groups) } => match shape.last() {
                Some(channels) if !channels.is_multiple_of(groups) => {
                    refused(format!("{channels} channels do not fall into {groups} groups"))
                }
                _ => f.group_norm(name, x, groups),
            },
            Kind::Dropout { dropout } => f.dropout(name, x, dropout),
            Kind::MaxPool { max_pool: Count(size), stride } => {
                fits(image()?, size, 0)?;
                f.tape.max_pool(x, Window { size, stride: stride.map_or(size, |stride| stride.0) })
            }
            Kind::AvgPool { avg_pool: Count(size) } => {
                let [h, w, _] = image()?;
                match h.is_multiple_of(size) && w.is_multiple_of(size) {
                    true => f.tape.avg_pool(x, size),
                    false => refused(format!("height and width are no multiples of {size}")),
                }
            }
            Kind::GlobalAvgPool {} => image().and_then(|_| f.tape.mean(x, 1, 3)),
            Kind::Subsample { subsample: Count(stride), channels } => {
                let [_, _, have] = image()?;
                let Some(new) = channels.map_or(Some(0), |channels| channels.0.checked_sub(have)) else {
                    return refused(format!("it can only add channels to the {have} that there are"));
                };
                f.tape.subsample(x, Strided { stride, before: new / 2, after: new - new / 2 })
            }
            Kind::Flatten {} => f.tape.flatten(x),
            Kind::Relu {} => f.tape.relu(x),
            Kind::Tanh {} => f.tape.tanh(x),
            Kind::Sigmoid {} => f.tape.sigmoid(x),
            Kind::Gelu {} => f.tape.gelu(x),
            Kind::Softplus {} => f.tape.softplus(x),
            Kind::Abs {} => f.tape.abs(x),
            Kind::Residual { .. } | Kind::Repeat { .. } => Ok(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_listed() {
        let read = |word: &str| {
            let table = toml::Table::from_iter([(word.to_owned(), Value::Table(toml::Table::new()))]);
            Kind::deserialize(Value::Table(table)).map_err(|e| e.message().to_owned())
        };
        let listed: Vec<String> = KINDS.iter().map(|(word, _)| format!("`{word}`")).collect();
        let unknown = format!("unknown variant `none`, expected one of {}", listed.join(", "));
        assert_eq!(read("none").unwrap_err(), unknown);
    }
}
