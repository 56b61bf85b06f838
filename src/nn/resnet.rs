//! ResNet for small images (He et al. 2016, section 4.2): three stages of basic blocks, option-A shortcuts (every second
//! pixel, zero channels put in on both sides). Five blocks a stage from 16 channels are ResNet-32.

use super::{Forward, Network, Param};
use crate::error::Result;
use crate::tape::{Strided, Var};

/// (name, channels in, channels out, stride) of every block.
fn blocks(per_stage: usize, width: usize) -> Vec<(String, usize, usize, usize)> {
    let mut all = Vec::new();
    let mut channels = width;
    for stage in 0..3 {
        for block in 0..per_stage {
            let (out, stride) = (width << stage, if stage > 0 && block == 0 { 2 } else { 1 });
            all.push((format!("block{}", all.len() + 1), channels, out, stride));
            channels = out;
        }
    }
    all
}

pub(super) fn params(net: &Network, per_stage: usize, width: usize) -> Vec<Param> {
    // Kaiming-normal, fan-in, as the official code initialises convolutions and the linear layer.
    let conv = |layer: &str, i: usize, o: usize| Param::conv_normal(layer, 3, i, o, 9 * i);
    let mut all = vec![conv("conv1", net.image[2], width)];
    all.extend(Param::norm("bn1", width));
    for (name, i, o, _) in blocks(per_stage, width) {
        all.push(conv(&format!("{name}.conv1"), i, o));
        all.extend(Param::norm(&format!("{name}.bn1"), o));
        all.push(conv(&format!("{name}.conv2"), o, o));
        all.extend(Param::norm(&format!("{name}.bn2"), o));
    }
    let last = width << 2;
    let [mut weight, bias] = Param::linear("fc", last, net.classes);
    weight.init = super::Init::Normal((2.0 / last as f64).sqrt());
    all.extend([weight, bias]);
    all
}

pub(super) fn logits(f: &mut Forward, x: Var, per_stage: usize, width: usize) -> Result<Var> {
    let x = f.conv("conv1", x, 1, 1)?;
    let x = f.batch_norm("bn1", x)?;
    let mut x = f.tape.relu(x)?;
    for (name, i, o, stride) in blocks(per_stage, width) {
        let h = f.conv(&format!("{name}.conv1"), x, stride, 1)?;
        let h = f.batch_norm(&format!("{name}.bn1"), h)?;
        let h = f.tape.relu(h)?;
        let h = f.conv(&format!("{name}.conv2"), h, 1, 1)?;
        let h = f.batch_norm(&format!("{name}.bn2"), h)?;
        let shortcut = if stride == 1 && i == o {
            x
        } else {
            let before = (o - i) / 2;
            f.tape.subsample(x, Strided { stride, before, after: o - i - before })?
        };
        let sum = f.tape.add(h, shortcut)?;
        x = f.tape.relu(sum)?;
    }
    let pooled = f.tape.mean(x, 1, 3)?;
    f.linear("fc", pooled)
}
