//! A network's parameters and running statistics under PyTorch's names and in its layouts.

use std::collections::{HashMap, HashSet};

use super::{Forward, Model, Normalisation, Params};
use crate::error::Result;
use crate::tape::{Form, Kind, Node, Op, Role, Shape, Tape, Var};

/// A state, and how PyTorch has it: convolutions' weights `[out, in/groups, h, w]`, linear weights
/// `[out, in]`, norms `<layer>.weight`, `.bias`, `.running_mean` and `.running_var`. Behind a
/// flattened image, PyTorch counts features by channel, then row, then column, and so does the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Slot {
    /// In a session.
    pub state: String,
    /// In PyTorch: `<layer>.<role>`.
    pub name: String,
    /// In PyTorch.
    pub shape: Vec<usize>,
    /// Here, as rows, columns, channels, outputs; there, outputs, channels, rows, columns.
    extents: [usize; 4],
}

impl Slot {
    /// A network's slots, in the order of the forward pass, for samples `[h,w,c]` or `[d]`.
    ///
    /// # Errors
    /// For samples that the network cannot take.
    pub fn of(model: &dyn Model, sample: &Shape) -> Result<Vec<Slot>> {
        let (mut tape, mut params) = (Tape::new(), Params::classifier());
        let x = tape.input("x", Kind::Float, sample.with(0, &[1]))?;
        model.logits(&mut Forward::new(&mut tape, &mut params, Normalisation::Running), x)?;
        let images = flattened(&tape);
        let mut names = HashSet::new();
        let slots = tape.states().iter().map(|(state, var)| {
            let shape = tape.shape(*var);
            let flat = images.get(var).copied();
            let (extents, shape) = match (&shape[..], flat) {
                (&[h, w, i, o], _) if state.ends_with(".weight") => ([h, w, i, o], vec![o, i, h, w]),
                (&[i, o], flat) if state.ends_with(".weight") => {
                    let [h, w, c] = flat.unwrap_or([1, 1, i]);
                    ([h, w, c, o], vec![o, i])
                }
                (&[h, w, c], _) => ([h, w, c, 1], vec![c, h, w]),
                (&[d], Some([h, w, c])) => ([h, w, c, 1], vec![d]),
                _ => ([1, 1, 1, shape.count()], shape.to_vec()),
            };
            let name = name(state);
            // A layer with both a weight and a scale has names of its own.
            let name = if names.contains(&name) { state.clone() } else { name };
            names.insert(name.clone());
            Slot { state: state.clone(), name, shape, extents }
        });
        Ok(slots.collect())
    }

    /// Numbers in PyTorch's order.
    pub fn to_torch(&self, ours: &[f64]) -> Vec<f64> {
        let mut theirs = vec![0.0; ours.len()];
        self.pairs(|here, there| theirs[there] = ours[here]);
        theirs
    }

    /// Numbers in PyTorch's order in ours.
    pub fn from_torch(&self, theirs: &[f64]) -> Vec<f64> {
        let mut ours = vec![0.0; theirs.len()];
        self.pairs(|here, there| ours[here] = theirs[there]);
        ours
    }

    /// Places of one number here and there.
    fn pairs(&self, mut pair: impl FnMut(usize, usize)) {
        let [h, w, c, o] = self.extents;
        let mut here = 0;
        for pixel in 0..h * w {
            for channel in 0..c {
                for out in 0..o {
                    pair(here, (out * c + channel) * h * w + pixel);
                    here += 1;
                }
            }
        }
    }
}

/// PyTorch's name of a state.
fn name(state: &str) -> String {
    let (prefix, rest) = state.split_once('.').unwrap_or(("", state));
    match (prefix, rest.rsplit_once('.')) {
        ("stats", Some((layer, role))) => format!("{layer}.running_{role}"),
        (_, Some((layer, "scale"))) => format!("{layer}.weight"),
        _ => rest.to_owned(),
    }
}

/// The states that meet a flattened image's features, with its rows, columns and channels.
fn flattened(tape: &Tape) -> HashMap<Var, [usize; 3]> {
    // Of values `[n, h·w·c]`, and of states.
    let mut images: HashMap<Var, [usize; 3]> = HashMap::new();
    // Features that group norm has split, which are no images.
    let mut split: HashSet<Var> = HashSet::new();
    for var in tape.vars() {
        let Node { op, args, shape, .. } = tape.node(var);
        let within = |arg: &Var| split.contains(arg) || (*op == Op::Reshape && tape.shape(*arg).len() == 2);
        if shape.len() == 4 && args.iter().any(within) {
            split.insert(var);
        } else if let (Op::Reshape, [_, _]) = (op, &shape[..])
            && !split.contains(&args[0])
            && let &[_, h, w, c] = &tape.shape(args[0])[..]
        {
            images.insert(var, [h, w, c]);
        } else if let Op::Contract { form: Form::Gemm, out: Role::C } = op {
            if let Some(image) = images.get(&args[0]).copied() {
                images.insert(args[1], image);
            }
        } else if let Some(image) = args.iter().find_map(|arg| images.get(arg).copied())
            && shape.last() == Some(&image.iter().product())
        {
            // The same features still: what else takes part has a number for each.
            for arg in args {
                let mut from = *arg;
                while let [only] = tape.node(from).args[..] {
                    from = only;
                }
                if tape.shape(from).last() == shape.last() {
                    images.entry(from).or_insert(image);
                }
            }
            images.insert(var, image);
        }
    }
    images
}
