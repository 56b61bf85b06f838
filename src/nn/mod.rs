//! Networks as functions on a tape.
//!
//! | file | network |
//! |---|---|
//! | `params.rs` | [`Params`]: parameters by name, declared where a layer first uses them |
//! | `layers.rs` | [`Forward`]: a forward pass and its layers |
//! | `dropout.rs` | [`feed_dropout`]: what dropout layers are fed |
//! | `summary.rs` | [`Summary`]: what a model declares |
//! | `mlp.rs`, `lenet.rs`, `resnet.rs`, `wide_resnet.rs` | the classifiers |
//! | `weight_net.rs` | the weight net `V(ℓ; θ)` |
//!
//! Layouts: activations NHWC, convolution weights HWIO, linear weights `[in, out]`.
//!
//! A network of one's own is one function; a closure will do:
//!
//! ```
//! use metatape::nn::{Forward, Model, Normalisation, Params};
//! use metatape::tape::{Kind, Tape, Var};
//!
//! let net = |f: &mut Forward, x: Var| {
//!     let h = f.linear("hidden", x, 16)?;
//!     let h = f.tape.sigmoid(h)?;
//!     f.linear("out", h, 3)
//! };
//! let (mut tape, mut params) = (Tape::new(), Params::classifier());
//! let x = tape.input("x", Kind::Float, [20, 4])?;
//! let logits = net.logits(&mut Forward::new(&mut tape, &mut params, Normalisation::Batch), x)?;
//! assert_eq!(tape.shape(logits)[..], [20, 3]);
//! let names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
//! assert_eq!(names, ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]);
//! # Ok::<(), metatape::Error>(())
//! ```
//!
//! Operations without parameters are methods of the pass's tape; layers with parameters, and
//! dropout, which is the identity in testing, are methods of the pass:
//!
//! ```
//! use metatape::backend::cpu::Cpu;
//! use metatape::nn::{Filters, Forward, Model, Normalisation, Params, feed_dropout};
//! use metatape::program::{Options, Session, Values};
//! use metatape::tape::{Init, Kind, Tape, Var};
//!
//! let net = |f: &mut Forward, x: Var| {
//!     let h = f.conv("conv", x, Filters::same(8, 3), Init::kaiming(9))?; // [n, 8, 8, 8]
//!     let h = f.group_norm("groups", h, 4)?;
//!     let h = f.tape.relu(h)?;
//!     let depthwise = Filters::same(8, 3).groups(8); // of each channel alone: [n, 8, 8, 8]
//!     let h = f.conv("depthwise", h, depthwise, Init::kaiming(depthwise.fan_in(8)))?;
//!     let h = f.conv("mix", h, Filters::same(16, 1), Init::kaiming(8))?; // 1×1: [n, 8, 8, 16]
//!     let h = f.tape.avg_pool(h, 2)?; // [n, 4, 4, 16]
//!     let h = f.layer_norm("layer", h, 1)?;
//!     let h = f.tape.mean(h, 1, 3)?; // [n, 16]
//!     let h = f.dropout("drop", h, 0.5)?;
//!     f.linear("out", h, 10)
//! };
//! let (mut tape, mut params) = (Tape::new(), Params::classifier());
//! let x = tape.input("x", Kind::Float, [20, 8, 8, 1])?;
//! let logits = net.logits(&mut Forward::new(&mut tape, &mut params, Normalisation::Batch), x)?;
//! tape.output("logits", logits)?;
//!
//! let mut session = Session::new(Box::new(Cpu::<f32>::new(1)?));
//! session.initialise(1)?;
//! let program = session.compile(&tape, Options::default())?;
//! let images: Vec<f64> = (0..20 * 64).map(|i| f64::from(i % 7)).collect();
//! session.feed(&program, "x", Values::Float(&images))?;
//! let mut logits = |step| {
//!     feed_dropout(&mut session, &program, 1, step)?;
//!     session.run(&program)?;
//!     session.fetch(&program, "logits")
//! };
//! assert_ne!(logits(0)?, logits(1)?); // other units are dropped
//! assert_eq!(logits(0)?, logits(0)?);
//! # Ok::<(), metatape::Error>(())
//! ```

mod dropout;
mod layers;
mod lenet;
mod mlp;
mod params;
mod resnet;
mod summary;
mod weight_net;
mod wide_resnet;

pub use dropout::feed_dropout;
#[cfg(feature = "lab")]
pub(crate) use dropout::is_noise;
pub use layers::{Filters, Forward, Moments, NORM_EPS, Normalisation};
pub use lenet::LeNet;
pub use mlp::Mlp;
pub use params::Params;
pub use resnet::ResNet;
pub use summary::Summary;
pub use weight_net::{GROUPS, WeightNet, WeightNetInit};
pub use wide_resnet::WideResNet;

use crate::error::{Error, Result};
use crate::tape::Var;

/// A classifier: a function from a forward pass and an input to logits. Closures are models.
///
/// It is recorded several times in one program, with other values for the same parameters, so it
/// must do the same each time.
pub trait Model {
    /// Logits `[n, classes]` of `x`: images `[n,h,w,c]` or features `[n,d]`.
    ///
    /// # Errors
    /// For inputs that the network cannot take; the tape's own.
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var>;
}

impl<F: Fn(&mut Forward, Var) -> Result<Var>> Model for F {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        self(f, x)
    }
}

/// A model that threads may share.
pub type SharedModel = Box<dyn Model + Send + Sync>;

/// The names that [`named`] knows.
pub const NAMES: [&str; 4] = ["mlp", "lenet", "resnet32", "wrn28-10"];

/// The networks of the field's experiments, by name: an MLP with 256 hidden units, LeNet with 32
/// and 64 channels and 256 hidden units, ResNet-32, WRN-28-10. With the feature `lab` there are
/// files that say the same, in `src/models/`.
///
/// # Errors
/// [`Error::Usage`] for a name that is none of [`NAMES`].
pub fn named(name: &str, classes: usize) -> Result<SharedModel> {
    Ok(match name {
        "mlp" => Box::new(Mlp { hidden: 256, classes }),
        "lenet" => Box::new(LeNet { channels: [32, 64], hidden: 256, classes }),
        "resnet32" => Box::new(ResNet { blocks: 5, width: 16, classes }),
        "wrn28-10" => Box::new(WideResNet { blocks: 4, widen: 10, classes }),
        _ => return Err(unknown(name)),
    })
}

pub(crate) fn unknown(name: &str) -> Error {
    let file = if cfg!(feature = "lab") { &["or a file that ends in .toml"][..] } else { &[] };
    Error::unknown("model", name, &[&NAMES, file].concat())
}
