//! The meta step of Meta-Weight-Net (Shu et al., NeurIPS 2019, arXiv 1902.07379), optimisers included, as one program.
//!
//! With per-sample losses `ℓ(w)` of a training batch and a weight net `V(·; θ)`, one iteration is
//!
//! 1. virtual step `ŵ = w − α ∇_w φ(ℓ(w), θ)`, where `φ = (1/n) Σ V(ℓ_i; θ) ℓ_i` (or `Σ V ℓ / Σ V`);
//! 2. `θ⁺ = θ − β ∇_θ L_meta(ŵ(θ))`: the hypergradient, by one of the [`Route`]s;
//! 3. real step from the same `w` on the same batch, with the weights `V(ℓ_i; θ⁺)`.
//!
//! # Why no Hessian appears
//!
//! `θ` reaches `ŵ` only through the coefficients `c = ∇_ℓ φ(ℓ, θ)` of the per-sample gradients:
//! `ŵ = w − α Σ_i c_i(θ) ∇ℓ_i(w)`. With `g = ∇L_meta(ŵ)` the chain rule gives
//!
//! `∂L_meta/∂θ = ⟨g, ∂ŵ/∂θ⟩ = −α Σ_i ⟨g, ∇ℓ_i(w)⟩ ∂c_i/∂θ = −α ∇_θ ⟨u, c(θ)⟩`, `u = J_ℓ(w) g`.
//!
//! `u` is one jvp of the per-sample losses: it asks along which direction the meta loss falls and how much each
//! sample's loss would fall along it. The second derivative is taken of `φ` alone, a function of n numbers. Nothing in
//! this assumes that samples are independent, so batch norm in train mode is differentiated exactly.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `config.rs` | the options of a step |
//! | `step.rs` | the three steps on a tape |
//! | `route.rs` | the hypergradient, a function a route |
//! | `optimiser.rs` | SGD and Adam as operations |
//! | `schemes/` | the field's other reweighting schemes, one file each |

mod config;
mod optimiser;
mod route;
pub mod schemes;
mod step;

pub use config::{Adam, Optimiser, Preset, Route, Sgd, StepConfig, VirtualStep, Weights, probe};
pub use optimiser::{AdamClock, adam_corrections};
pub use step::{Batch, Evaluation, MetaStep, PlainStep};
