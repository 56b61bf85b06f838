use super::{Filters, Forward, Model};
use crate::error::Result;
use crate::tape::{Init, Var};

/// Wide residual networks (Zagoruyko & Komodakis 2016): pre-activation blocks, 1×1 convolutions as
/// shortcuts where channels change. Four blocks a stage, widened 10 times, are WRN-28-10. The
/// official code draws from a normal with the fan-out.
#[derive(Clone, PartialEq, Debug)]
pub struct WideResNet {
    /// Blocks of a stage.
    pub blocks: usize,
    /// Widening factor of 16, 32, 64 channels.
    pub widen: usize,
    /// Number of classes.
    pub classes: usize,
}

const FIRST: usize = 16;

impl Model for WideResNet {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        let mut x = conv(f, "conv1", x, Filters::same(FIRST, 3))?;
        for block in 0..3 * self.blocks {
            let stage = block / self.blocks;
            let stride = if stage > 0 && block % self.blocks == 0 { 2 } else { 1 };
            let out = (FIRST << stage) * self.widen;
            x = pre_activation_block(f, &format!("block{}", block + 1), x, out, stride)?;
        }
        let x = f.batch_norm("bn", x)?;
        let x = f.tape.relu(x)?;
        let pooled = f.tape.mean(x, 1, 3)?;
        let last = f.tape.shape(pooled).last().copied().unwrap_or(1);
        f.linear_from("fc", pooled, self.classes, [Init::torch(last), Init::Constant(0.0)])
    }
}

fn conv(f: &mut Forward, layer: &str, x: Var, filters: Filters) -> Result<Var> {
    f.conv(layer, x, filters, Init::kaiming(filters.size * filters.size * filters.out))
}

fn pre_activation_block(f: &mut Forward, name: &str, x: Var, out: usize, stride: usize) -> Result<Var> {
    let a = f.batch_norm(&format!("{name}.bn1"), x)?;
    let a = f.tape.relu(a)?;
    let h = conv(f, &format!("{name}.conv1"), a, Filters::same(out, 3).stride(stride))?;
    let h = f.batch_norm(&format!("{name}.bn2"), h)?;
    let h = f.tape.relu(h)?;
    let h = conv(f, &format!("{name}.conv2"), h, Filters::same(out, 3))?;
    // Where channels change, the shortcut starts from the activated input.
    let shortcut = if f.tape.shape(x).last() == Some(&out) {
        x
    } else {
        conv(f, &format!("{name}.shortcut"), a, Filters::same(out, 1).stride(stride))?
    };
    f.tape.add(h, shortcut)
}
