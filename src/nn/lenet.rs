//! Two 5×5 convolutions (padded by 2), each with bias, ReLU and 2×2 max-pooling, then two linear layers.

use super::{Forward, Init, Network, Param};
use crate::error::Result;
use crate::tape::{Var, Window};

const POOL: Window = Window { size: 2, stride: 2 };

pub(super) fn params(net: &Network, [c1, c2, hidden]: [usize; 3]) -> Vec<Param> {
    let [h, w, c] = net.image;
    let flat = (h / 2 / 2) * (w / 2 / 2) * c2;
    // PyTorch's default initialisation of a convolution: U(±1/√fan_in), weight and bias.
    let conv = |layer: &str, i: usize, o: usize| {
        let init = Init::Uniform(1.0 / ((25 * i) as f64).sqrt());
        [
            Param::new(format!("{layer}.weight"), [5, 5, i, o], init.clone()),
            Param::new(format!("{layer}.bias"), [o], init),
        ]
    };
    [
        conv("conv1", c, c1),
        conv("conv2", c1, c2),
        Param::linear("fc1", flat, hidden),
        Param::linear("fc2", hidden, net.classes),
    ]
    .concat()
}

pub(super) fn logits(f: &mut Forward, x: Var) -> Result<Var> {
    let mut x = x;
    for layer in ["conv1", "conv2"] {
        x = f.conv_bias(layer, x, 1, 2)?;
        x = f.tape.relu(x)?;
        x = f.tape.max_pool(x, POOL)?;
    }
    let x = f.tape.flatten(x)?;
    let h = f.linear("fc1", x)?;
    let h = f.tape.relu(h)?;
    f.linear("fc2", h)
}
