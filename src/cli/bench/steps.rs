//! The two steps that are planned and timed, as tapes.

use metatape::Result;
use metatape::meta::{Batch, MetaStep, Optimiser, PlainStep, Preset, Route, StepConfig};
use metatape::nn::{self, SharedModel, WeightNet, WeightNetInit};
use metatape::program::{Options, Plan};
use metatape::tape::{GatherSpec, Scalar, Tape};

/// Random images in memory, from which batches are gathered.
pub const IMAGES: usize = 1000;
pub const CLASSES: usize = 10;

/// A plain step and a meta step of one network.
pub struct Steps {
    net: SharedModel,
    pub weight_net: WeightNet,
    pub config: StepConfig,
    /// `[h, w, c]` of an image.
    pub image: [usize; 3],
    data: Batch,
    batch: usize,
}

impl Steps {
    /// 28×28 grey images for the small networks, 32×32 in colour for the others, with the border
    /// for crops that training has there.
    pub fn new(model: &str, batch: usize, route: Route) -> Result<Steps> {
        let grey = matches!(model, "mlp" | "lenet");
        let image = if grey { [28, 28, 1] } else { [32, 32, 3] };
        let spec = GatherSpec {
            mean: vec![Scalar(0.5); image[2]],
            std: vec![Scalar(0.29); image[2]],
            pad: if grey { 0 } else { 4 },
        };
        let weight_net = WeightNet {
            hidden: 100,
            init: WeightNetInit::Kinks,
            slope: Preset::Adam.slope(),
            groups: Vec::new(),
        };
        Ok(Steps {
            net: nn::named(model, CLASSES)?,
            weight_net,
            config: StepConfig { route, ..StepConfig::default() },
            image,
            data: Batch::Picked { count: IMAGES, image, spec },
            batch,
        })
    }

    /// The whole meta step.
    pub fn meta(&self) -> Result<Plan> {
        let Steps { net, weight_net, config, data, batch, .. } = self;
        let (net, mut tape) = (net.as_ref(), Tape::new());
        let step = MetaStep { net, weight_net, config, data, batch: [*batch; 2] };
        step.record(&mut tape, false)?;
        Plan::new(&tape, Options::default())
    }

    /// A step of the classifier alone.
    pub fn plain(&self) -> Result<Plan> {
        let Steps { net, config, data, batch, .. } = self;
        let (net, mut tape) = (net.as_ref(), Tape::new());
        PlainStep { net, optimiser: Optimiser::Sgd(config.classifier), data, batch: *batch }
            .record(&mut tape)?;
        Plan::new(&tape, Options::default())
    }
}
