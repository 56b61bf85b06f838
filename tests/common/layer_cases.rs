//! Cases of the layers that are made of several operations.

use metatape::tape::Shape;

use super::{Build, Case, Domain, Size};

/// In small groups of numbers the variance may be small; ε keeps their curvature within what
/// differences can see.
const EPS: f64 = 0.1;

/// Average pooling, layer and group norm, dropout.
pub fn layer_cases(Size { n, h, c }: Size) -> Vec<Case> {
    let image: Shape = [n, h, h + 1, c].into();
    let mut all = Vec::new();
    let mut case = |name: String, inputs: &[&Shape], build: Build| {
        let inputs = inputs.iter().map(|shape| ((*shape).clone(), Domain::Signed)).collect();
        all.push(Case { name, inputs, build, smooth: true });
    };
    for (size, rows, columns) in [(2, 4, 6), (3, 3, 6)] {
        let pooled: Shape = [n, rows, columns, c].into();
        case(format!("average pooling {size}"), &[&pooled], Box::new(move |t, v| t.avg_pool(v[0], size)));
    }
    for axes in [1, 3] {
        let build: Build = Box::new(move |t, v| t.layer_normalise(v[0], axes, EPS));
        case(format!("layer norm over {axes}"), &[&image], build);
    }
    // One group, a few, and one a channel.
    let few = (2..=c).find(|groups| c % groups == 0).unwrap_or(1);
    for groups in [1, few, c] {
        let build: Build = Box::new(move |t, v| t.group_normalise(v[0], groups, EPS));
        case(format!("group norm, {groups} groups"), &[&image], build);
    }
    let rows: Shape = [n, c].into();
    case("group norm of rows".into(), &[&rows], Box::new(move |t, v| t.group_normalise(v[0], 1, EPS)));
    // Signed numbers are not between −0.1 and 0.1: none is near what decides.
    case("dropout".into(), &[&image, &image], Box::new(|t, v| t.dropout(v[0], v[1], 0.05)));
    all
}
