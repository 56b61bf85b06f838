//! A session's states before the first step.

use crate::data::{Stream, rng};
use crate::error::Result;
use crate::nn::{Network, Param, WeightNet};
use crate::program::{Session, Values};

/// Gives every state of the session's programs its first value: `w.*`, `w2.*` and `theta.*` from their initialisations (a function of
/// `seed` alone), running means 0, running variances 1, all moments and a scheme's own states 0. Other states (`pixels`) stay. Again after
/// steps, it undoes them.
///
/// # Errors
/// If the session's parameters have other shapes than the networks'.
pub fn initialise(session: &mut Session, net: &Network, weight_net: &WeightNet, seed: u64) -> Result<()> {
    let (classifier, theta) = (net.params(), weight_net.params());
    for state in session.states().to_vec() {
        let name = state.name.as_str();
        let count = state.shape.count();
        let drawn = drawn(name, "w.", &classifier, seed, Stream::Classifier)
            .or_else(|| drawn(name, "w2.", &classifier, seed, Stream::SecondClassifier))
            .or_else(|| drawn(name, "theta.", &theta, seed, Stream::WeightNet));
        let values = if let Some(values) = drawn {
            values
        } else if ["momentum.", "momentum2.", "theta.moment", "scheme."].iter().any(|p| name.starts_with(p)) {
            vec![0.0; count]
        } else if ["stats.", "stats2."].iter().any(|p| name.starts_with(p)) {
            vec![if name.ends_with(".var") { 1.0 } else { 0.0 }; count]
        } else {
            continue;
        };
        session.write_state(name, Values::Float(&values))?;
    }
    Ok(())
}

/// The first value of the parameter whose state is called `name`, if it is one of `params`.
fn drawn(name: &str, prefix: &str, params: &[Param], seed: u64, stream: Stream) -> Option<Vec<f64>> {
    let name = name.strip_prefix(prefix)?;
    let at = params.iter().position(|p| p.name == name)?;
    Some(params[at].initial(&mut rng(seed, stream, at as u64)))
}
