//! Networks as functions on a tape.
//!
//! | file | network |
//! |---|---|
//! | `params.rs` | parameters by name: shapes, initialisation |
//! | `layers.rs` | [`Forward`]: linear, convolution, batch norm, by parameter name |
//! | `mlp.rs`, `lenet.rs`, `resnet.rs`, `wide_resnet.rs` | the classifiers |
//! | `weight_net.rs` | the weight net `V(ℓ; θ)` |
//!
//! Layouts: activations NHWC, convolution weights HWIO, linear weights `[in, out]`.

mod layers;
mod lenet;
mod mlp;
mod params;
mod resnet;
mod weight_net;
mod wide_resnet;

pub use layers::{Forward, Moments, NORM_EPS, Normalisation};
pub use params::{Init, Param, Params};
pub use weight_net::{GROUPS, WeightNet, WeightNetInit};

use crate::error::{Error, Result};
use crate::tape::Var;

/// A classifier: images `[n,h,w,c]` to logits `[n, classes]`.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// Image height, width and channels.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// What lies between.
    pub architecture: Architecture,
}

/// The networks of the field's experiments, with their widths.
#[derive(Clone, PartialEq, Debug)]
pub enum Architecture {
    /// One hidden layer of this width.
    Mlp(usize),
    /// Channels of two 5×5 convolutions (padded by 2, each with ReLU and 2×2 pooling), width of the hidden layer.
    LeNet([usize; 3]),
    /// Blocks a stage, channels of the first stage (doubled twice); option-A shortcuts.
    ResNet(usize, usize),
    /// Blocks a stage, widening factor of 16, 32, 64 channels; pre-activation, 1×1 shortcuts.
    WideResNet(usize, usize),
}

impl Network {
    /// A network by its name on the command line.
    ///
    /// # Errors
    /// For an unknown name, or images that the network cannot take.
    pub fn named(name: &str, image: [usize; 3], classes: usize) -> Result<Network> {
        let architecture = match name {
            "mlp" => Architecture::Mlp(256),
            "lenet" => Architecture::LeNet([32, 64, 256]),
            "resnet32" => Architecture::ResNet(5, 16),
            "wrn28-10" => Architecture::WideResNet(4, 10),
            _ => {
                let known = "mlp, lenet, resnet32, wrn28-10";
                return Err(Error::Usage(format!("there is no model `{name}`; choose one of {known}")));
            }
        };
        let [h, w, _] = image;
        if !matches!(architecture, Architecture::Mlp(_)) && (h < 4 || w < 4) {
            let sentence =
                format!("`{name}` needs images of at least 4x4 pixels, these have {h}x{w}; use `mlp`");
            return Err(Error::Data(sentence));
        }
        Ok(Network { image, classes, architecture })
    }

    /// All parameters, in the order of the forward pass.
    pub fn params(&self) -> Vec<Param> {
        match self.architecture {
            Architecture::Mlp(hidden) => mlp::params(self, hidden),
            Architecture::LeNet(widths) => lenet::params(self, widths),
            Architecture::ResNet(blocks, width) => resnet::params(self, blocks, width),
            Architecture::WideResNet(blocks, widen) => wide_resnet::params(self, blocks, widen),
        }
    }

    /// Names and channel counts of all batch norms, in the order of the forward pass.
    pub fn norms(&self) -> Vec<(String, usize)> {
        let scale = |p: Param| p.name.strip_suffix(".scale").map(|n| (n.to_owned(), p.shape.count()));
        self.params().into_iter().filter_map(scale).collect()
    }

    /// Whether a sample's loss depends on the other samples of its batch (train-mode batch norm).
    pub fn couples_samples(&self) -> bool {
        !self.norms().is_empty()
    }

    /// Logits `[n, classes]` of images `x` `[n,h,w,c]`.
    pub fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        match self.architecture {
            Architecture::Mlp(_) => mlp::logits(f, x),
            Architecture::LeNet(_) => lenet::logits(f, x),
            Architecture::ResNet(blocks, width) => resnet::logits(f, x, blocks, width),
            Architecture::WideResNet(blocks, widen) => wide_resnet::logits(f, x, blocks, widen),
        }
    }

    /// The network's name and extents, as a checkpoint records them.
    pub fn signature(&self) -> String {
        let [h, w, c] = self.image;
        format!("{:?} on {h}x{w}x{c}, {} classes", self.architecture, self.classes)
    }
}
