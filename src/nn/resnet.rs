use super::{Filters, Forward, Model};
use crate::error::Result;
use crate::tape::{Init, Strided, Var};

/// ResNet for small images (He et al. 2016, section 4.2): three stages of basic blocks, option-A
/// shortcuts (every second pixel, zero channels put in on both sides). Five blocks a stage from 16
/// channels are ResNet-32. Kaiming-normal with the fan-in, as the official code initialises
/// convolutions and the linear layer.
#[derive(Clone, PartialEq, Debug)]
pub struct ResNet {
    /// Blocks of a stage.
    pub blocks: usize,
    /// Channels of the first stage; doubled twice.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Model for ResNet {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        let x = conv(f, "conv1", x, self.width, 1)?;
        let x = f.batch_norm("bn1", x)?;
        let mut x = f.tape.relu(x)?;
        for block in 0..3 * self.blocks {
            let stage = block / self.blocks;
            let stride = if stage > 0 && block % self.blocks == 0 { 2 } else { 1 };
            x = basic_block(f, &format!("block{}", block + 1), x, self.width << stage, stride)?;
        }
        let pooled = f.tape.mean(x, 1, 3)?;
        let last = self.width << 2;
        f.linear_from("fc", pooled, self.classes, [Init::kaiming(last), Init::torch(last)])
    }
}

fn conv(f: &mut Forward, layer: &str, x: Var, out: usize, stride: usize) -> Result<Var> {
    let channels = f.tape.shape(x).last().copied().unwrap_or(1);
    let filters = Filters::same(out, 3).stride(stride);
    f.conv(layer, x, filters, Init::kaiming(filters.fan_in(channels)))
}

fn basic_block(f: &mut Forward, name: &str, x: Var, out: usize, stride: usize) -> Result<Var> {
    let h = conv(f, &format!("{name}.conv1"), x, out, stride)?;
    let h = f.batch_norm(&format!("{name}.bn1"), h)?;
    let h = f.tape.relu(h)?;
    let h = conv(f, &format!("{name}.conv2"), h, out, 1)?;
    let h = f.batch_norm(&format!("{name}.bn2"), h)?;
    let channels = f.tape.shape(x).last().copied().unwrap_or(1);
    let shortcut = if stride == 1 && channels == out {
        x
    } else {
        let before = (out - channels) / 2;
        f.tape.subsample(x, Strided { stride, before, after: out - channels - before })?
    };
    let sum = f.tape.add(h, shortcut)?;
    f.tape.relu(sum)
}
