//! A session with its first parameters.

use crate::data::{Stream, rng};
use crate::error::Result;
use crate::nn::{Network, Param, WeightNet};
use crate::program::{Session, Values};

/// Writes first values into all states of a session that its programs have declared: `w.*` and `theta.*` from `seed` (each
/// parameter from random numbers of its own), running variances 1, everything else (moments, running means) 0.
///
/// # Errors
/// None for sessions whose programs are those of this crate.
pub fn initialise(session: &mut Session, net: &Network, weight_net: &WeightNet, seed: u64) -> Result<()> {
    let declared: Vec<_> =
        session.states().iter().map(|s| (s.name.clone(), s.kind, s.shape.count())).collect();
    for (name, _, count) in declared.iter().filter(|s| s.1 == crate::tape::Kind::Float) {
        let first = if name.starts_with("stats.") && name.ends_with(".var") { 1.0 } else { 0.0 };
        session.write_state(name, Values::Float(&vec![first; *count]))?;
    }
    let mut write = |prefix: &str, params: Vec<Param>, stream: Stream| -> Result<()> {
        for (i, param) in params.iter().enumerate() {
            let name = format!("{prefix}.{}", param.name);
            if declared.iter().any(|d| d.0 == name) {
                let values = param.initial(&mut rng(seed, stream, i as u64));
                session.write_state(&name, Values::Float(&values))?;
            }
        }
        Ok(())
    };
    write("w", net.params(), Stream::Classifier)?;
    write("theta", weight_net.params(), Stream::WeightNet)
}
