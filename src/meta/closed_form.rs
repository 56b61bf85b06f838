//! The hypergradient written out by hand, from a step's per-sample numbers: what the program's own
//! is checked against.

use super::config::{StepConfig, Weights};
use crate::error::{Error, Result};

/// A weight net's parameters as numbers: hidden unit k is `r_k = relu(a_k ℓ + b_k)`, and
/// `V = σ(Σ p_k r_k + q)`.
#[derive(Clone, PartialEq, Debug)]
pub struct ThetaValues {
    /// `a` `[hidden]` (`fc1.weight`).
    pub slopes: Vec<f64>,
    /// `b` `[hidden]` (`fc1.bias`).
    pub offsets: Vec<f64>,
    /// `p` `[hidden]` (`fc2.weight`).
    pub outer: Vec<f64>,
    /// `q` (`fc2.bias`).
    pub bias: f64,
}

/// What the closed form gives for a batch.
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedForm {
    /// `V(ℓ_i; θ)` `[n]`.
    pub weights: Vec<f64>,
    /// `V′(ℓ_i; θ) = ∂V/∂ℓ` `[n]`.
    pub slopes: Vec<f64>,
    /// `c_i` `[n]`: the share of the sample's gradient in the virtual step.
    pub coefficients: Vec<f64>,
    /// `−∂L_meta/∂V_i = α p_i` `[n]`, V's slope held: positive where the meta loss falls if the
    /// sample's weight alone grows.
    pub pull: Vec<f64>,
    /// `−∂L_meta/∂V′_i = α q_i` `[n]`, V held; 0 where the loss that V reads is detached.
    pub slope_pull: Vec<f64>,
    /// `∂L_meta/∂θ`, in the order `fc1.weight`, `fc1.bias`, `fc2.weight`, `fc2.bias`,
    /// `[3·hidden + 1]`.
    pub hypergrad: Vec<f64>,
    /// The lengths of all terms that `hypergrad` is the sum of, together: where they cancel, its
    /// rounding is relative to this.
    pub size: f64,
}

/// V, its slope, and the derivatives of both by θ, at one loss.
struct Point {
    v: f64,
    slope: f64,
    v_by_theta: Vec<f64>,
    slope_by_theta: Vec<f64>,
}

impl ThetaValues {
    /// From the weight net's parameters in their order.
    ///
    /// # Errors
    /// If there are not four of them with the shapes of a 1 – hidden – 1 net.
    pub fn new(params: &[Vec<f64>]) -> Result<ThetaValues> {
        match params {
            [a, b, p, q] if a.len() == b.len() && b.len() == p.len() && q.len() == 1 => {
                Ok(ThetaValues { slopes: a.clone(), offsets: b.clone(), outer: p.clone(), bias: q[0] })
            }
            _ => Err(Error::Program("the closed form is that of a weight net 1 – hidden – 1".into())),
        }
    }

    fn at(&self, loss: f64) -> Point {
        let hidden = self.slopes.len();
        let on: Vec<f64> =
            (0..hidden).map(|k| f64::from(u8::from(self.slopes[k] * loss + self.offsets[k] > 0.0))).collect();
        let r: Vec<f64> = (0..hidden).map(|k| on[k] * (self.slopes[k] * loss + self.offsets[k])).collect();
        let z: f64 = (0..hidden).map(|k| self.outer[k] * r[k]).sum::<f64>() + self.bias;
        // d = dz/dℓ, s = σ′(z), bend = σ″(z)
        let d: f64 = (0..hidden).map(|k| self.outer[k] * self.slopes[k] * on[k]).sum();
        let v = 1.0 / (1.0 + (-z).exp());
        let s = v * (1.0 - v);
        let bend = s * (1.0 - 2.0 * v);
        let units = || 0..hidden;
        // Derivatives of z, then of d, by a, b, p and q.
        let z_by: Vec<f64> = units()
            .map(|k| self.outer[k] * on[k] * loss)
            .chain(units().map(|k| self.outer[k] * on[k]))
            .chain(r.iter().copied())
            .chain([1.0])
            .collect();
        let d_by = units()
            .map(|k| self.outer[k] * on[k])
            .chain(units().map(|_| 0.0))
            .chain(units().map(|k| self.slopes[k] * on[k]))
            .chain([0.0]);
        let slope_by_theta = z_by.iter().zip(d_by).map(|(z, by)| bend * d * z + s * by).collect();
        Point { v, slope: s * d, v_by_theta: z_by.iter().map(|z| s * z).collect(), slope_by_theta }
    }

    /// The hypergradient of a batch with these losses and `u` `[n]`, at the learning rate `lr`: the
    /// formulas of [`crate::meta`]'s page, with loops.
    pub fn closed_form(&self, config: &StepConfig, lr: f64, losses: &[f64], u: &[f64]) -> ClosedForm {
        let points: Vec<Point> = losses.iter().map(|l| self.at(*l)).collect();
        let n = losses.len() as f64;
        let bends = if config.undetached { 1.0 } else { 0.0 };
        // φ divides by `total`; `middle` is its value where that depends on V, and 0 where it does
        // not.
        let (total, middle, shares) = match config.weights {
            Weights::Mean => (n, 0.0, 0.0),
            Weights::Normalised => {
                let total: f64 = points.iter().map(|p| p.v).sum();
                (total, points.iter().zip(losses).map(|(p, l)| p.v * l).sum::<f64>() / total, 1.0)
            }
        };
        let coefficients: Vec<f64> =
            points.iter().zip(losses).map(|(p, l)| (p.v + bends * p.slope * (l - middle)) / total).collect();
        let uc: f64 = u.iter().zip(&coefficients).map(|(u, c)| u * c).sum();
        let uslope: f64 = u.iter().zip(&points).map(|(u, p)| bends * u * p.slope).sum();
        // c_j is linear in V_j and V′_j: by_v and by_slope, the page's p and q, are the derivatives
        // of ⟨u, c⟩ by the two.
        let by_v =
            |l: f64, u: f64| (u - shares * uc) / total - shares * (l - middle) / (total * total) * uslope;
        let by_slope = |l: f64, u: f64| bends * u * (l - middle) / total;
        let (by_v, by_slope): (Vec<f64>, Vec<f64>) =
            losses.iter().zip(u).map(|(l, u)| (by_v(*l, *u), by_slope(*l, *u))).unzip();
        let reach = lr * config.reach();
        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let term = |((point, by_slope), (l, u)): ((&Point, &f64), (&f64, &f64))| {
            let by_v = (u.abs() + shares * uc.abs()) / total
                + shares * (l - middle).abs() / (total * total) * uslope.abs();
            by_v * length(&point.v_by_theta) + by_slope.abs() * length(&point.slope_by_theta)
        };
        let size = reach * points.iter().zip(&by_slope).zip(losses.iter().zip(u)).map(term).sum::<f64>();
        let mut hypergrad = vec![0.0; 3 * self.slopes.len() + 1];
        for ((point, by_v), by_slope) in points.iter().zip(&by_v).zip(&by_slope) {
            let parts = point.v_by_theta.iter().zip(&point.slope_by_theta);
            for (h, (v, slope)) in hypergrad.iter_mut().zip(parts) {
                *h -= reach * (by_v * v + by_slope * slope);
            }
        }
        ClosedForm {
            weights: points.iter().map(|p| p.v).collect(),
            slopes: points.iter().map(|p| p.slope).collect(),
            coefficients,
            pull: by_v.iter().map(|b| reach * b).collect(),
            slope_pull: by_slope.iter().map(|b| reach * b).collect(),
            hypergrad,
            size,
        }
    }
}
