//! Wide residual networks (Zagoruyko & Komodakis 2016): pre-activation blocks, 1×1 convolutions as shortcuts where channels
//! change. Four blocks a stage, widened 10 times, are WRN-28-10.

use super::{Forward, Network, Param};
use crate::error::Result;
use crate::tape::Var;

const FIRST: usize = 16;

/// (name, channels in, channels out, stride) of every block.
fn blocks(per_stage: usize, widen: usize) -> Vec<(String, usize, usize, usize)> {
    let mut all = Vec::new();
    let mut channels = FIRST;
    for stage in 0..3 {
        for block in 0..per_stage {
            let (out, stride) = ((FIRST << stage) * widen, if stage > 0 && block == 0 { 2 } else { 1 });
            all.push((format!("block{}", all.len() + 1), channels, out, stride));
            channels = out;
        }
    }
    all
}

pub(super) fn params(net: &Network, per_stage: usize, widen: usize) -> Vec<Param> {
    // The official code draws from a normal with the fan-out.
    let conv = |layer: &str, k: usize, i: usize, o: usize| Param::conv_normal(layer, k, i, o, k * k * o);
    let mut all = vec![conv("conv1", 3, net.image[2], FIRST)];
    let mut last = FIRST;
    for (name, i, o, _) in blocks(per_stage, widen) {
        all.extend(Param::norm(&format!("{name}.bn1"), i));
        all.push(conv(&format!("{name}.conv1"), 3, i, o));
        all.extend(Param::norm(&format!("{name}.bn2"), o));
        all.push(conv(&format!("{name}.conv2"), 3, o, o));
        if i != o {
            all.push(conv(&format!("{name}.shortcut"), 1, i, o));
        }
        last = o;
    }
    all.extend(Param::norm("bn", last));
    let [weight, mut bias] = Param::linear("fc", last, net.classes);
    bias.init = super::Init::Constant(0.0);
    all.extend([weight, bias]);
    all
}

pub(super) fn logits(f: &mut Forward, x: Var, per_stage: usize, widen: usize) -> Result<Var> {
    let mut x = f.conv("conv1", x, 1, 1)?;
    for (name, i, o, stride) in blocks(per_stage, widen) {
        let a = f.batch_norm(&format!("{name}.bn1"), x)?;
        let a = f.tape.relu(a)?;
        let h = f.conv(&format!("{name}.conv1"), a, stride, 1)?;
        let h = f.batch_norm(&format!("{name}.bn2"), h)?;
        let h = f.tape.relu(h)?;
        let h = f.conv(&format!("{name}.conv2"), h, 1, 1)?;
        // Where channels change, the shortcut starts from the activated input.
        let shortcut = if i == o { x } else { f.conv(&format!("{name}.shortcut"), a, stride, 0)? };
        x = f.tape.add(h, shortcut)?;
    }
    let x = f.batch_norm("bn", x)?;
    let x = f.tape.relu(x)?;
    let pooled = f.tape.mean(x, 1, 3)?;
    f.linear("fc", pooled)
}
