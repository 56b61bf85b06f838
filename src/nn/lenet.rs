use super::{Filters, Forward, Model};
use crate::error::Result;
use crate::tape::{Init, Var, Window};

/// Two 5×5 convolutions (padded by 2), each with bias, ReLU and 2×2 max-pooling, then two linear
/// layers. First values are PyTorch's default: U(±1/√fan_in), weights and biases.
#[derive(Clone, PartialEq, Debug)]
pub struct LeNet {
    /// Channels of the two convolutions.
    pub channels: [usize; 2],
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Number of classes.
    pub classes: usize,
}

const POOL: Window = Window { size: 2, stride: 2 };

impl Model for LeNet {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        let mut x = x;
        for (layer, out) in ["conv1", "conv2"].into_iter().zip(self.channels) {
            let channels = f.tape.shape(x).last().copied().unwrap_or(1);
            let filters = Filters::same(out, 5);
            let init = Init::torch(filters.fan_in(channels));
            x = f.conv(layer, x, filters, init.clone())?;
            x = f.bias(layer, x, init)?;
            x = f.tape.relu(x)?;
            x = f.tape.max_pool(x, POOL)?;
        }
        let x = f.tape.flatten(x)?;
        let h = f.linear("fc1", x, self.hidden)?;
        let h = f.tape.relu(h)?;
        f.linear("fc2", h, self.classes)
    }
}
