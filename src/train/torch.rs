//! A network's parameters and running statistics under PyTorch's names and in its layouts.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::nn::{Forward, Model, Normalisation, Params};
use crate::tape::{Form, Kind, Node, Op, Role, Shape, Tape, Var};

/// A state, and how PyTorch has it: convolutions' weights `[out, in/groups, h, w]`, linear weights
/// `[out, in]`, norms `<layer>.weight`, `.bias`, `.running_mean` and `.running_var`. Behind a
/// flattened image, PyTorch counts features by channel, then row, then column, and so does the
/// file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Slot {
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
    pub fn theirs(&self, ours: &[f64]) -> Vec<f64> {
        let mut theirs = vec![0.0; ours.len()];
        self.pairs(|here, there| theirs[there] = ours[here]);
        theirs
    }

    /// Numbers in PyTorch's order in ours.
    pub fn ours(&self, theirs: &[f64]) -> Vec<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Filters;
    use crate::tape::Init;

    #[test]
    fn features_of_a_flattened_image_go_by_channel_first() {
        let net = |f: &mut Forward, x: Var| {
            let x = f.conv("conv", x, Filters::same(4, 3).groups(2), Init::Constant(1.0))?;
            let x = f.layer_norm("whole", x, 3)?;
            let x = f.tape.flatten(x)?;
            let x = f.batch_norm("flat", x)?;
            let x = f.tape.relu(x)?;
            let x = f.layer_norm("layer", x, 1)?;
            let x = f.linear("first", x, 6)?;
            let x = f.group_norm("groups", x, 2)?;
            f.linear("last", x, 2)
        };
        let slots = Slot::of(&net, &[2, 3, 2].into()).unwrap();
        let found: Vec<_> = slots.iter().map(|s| (s.name.as_str(), &s.shape[..], s.extents)).collect();
        let (image, plain) = ([2, 3, 4, 1], |d: usize| [1, 1, 1, d]);
        let expected: [(&str, &[usize], [usize; 4]); 15] = [
            ("conv.weight", &[4, 1, 3, 3], [3, 3, 1, 4]),
            ("whole.weight", &[4, 2, 3], image),
            ("whole.bias", &[4, 2, 3], image),
            ("flat.running_mean", &[24], image),
            ("flat.running_var", &[24], image),
            ("flat.weight", &[24], image),
            ("flat.bias", &[24], image),
            ("layer.weight", &[24], image),
            ("layer.bias", &[24], image),
            ("first.weight", &[6, 24], [2, 3, 4, 6]),
            ("first.bias", &[6], plain(6)),
            ("groups.weight", &[6], plain(6)),
            ("groups.bias", &[6], plain(6)),
            ("last.weight", &[2, 6], [1, 1, 6, 2]),
            ("last.bias", &[2], plain(2)),
        ];
        assert_eq!(found, expected);
        for slot in slots {
            let here: Vec<f64> = (0..slot.shape.iter().product()).map(|i| i as f64).collect();
            assert_eq!(slot.ours(&slot.theirs(&here)), here);
        }
        // Rows, columns, channels 2×1×2, outputs 1: the second channel's two rows come last.
        let slot = Slot { state: "".into(), name: "".into(), shape: vec![4], extents: [2, 1, 2, 1] };
        assert_eq!(slot.theirs(&[0.0, 1.0, 2.0, 3.0]), [0.0, 2.0, 1.0, 3.0]);
    }
}
