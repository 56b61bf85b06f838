//! The meta step of Meta-Weight-Net (Shu et al., NeurIPS 2019, arXiv 1902.07379), optimisers
//! included, as one program.
//!
//! With per-sample losses `ℓ(w)` of a training batch and a weight net `V(·; θ)`, one iteration is
//!
//! 1. virtual step `ŵ = w − α ∇_w φ(ℓ(w), θ)`, where `φ = (1/n) Σ V(ℓ_i; θ) ℓ_i` (or
//!    `Σ V ℓ / Σ V`);
//! 2. `θ⁺ = θ − β ∇_θ L_meta(ŵ(θ))`: the hypergradient, by one of the [`Route`]s;
//! 3. real step from the same `w` on the same batch, with the weights `V(ℓ_i; θ⁺)`.
//!
//! Step 2 differentiates through step 1, which is itself a gradient. The rest of this page is about
//! how that is done without a second derivative of the network. `metatape hypergrad --explain`
//! shows all of it in numbers.
//!
//! # The formula
//!
//! **What θ can change.** The training losses at `w` are there before θ says anything. θ only
//! decides how much of each sample's gradient the virtual step takes. Write `c_i` for that share:
//!
//! `ŵ(θ) = w − α Σ_i c_i(θ) ∇ℓ_i(w)`, where `c = ∇_ℓ φ(ℓ, θ)`; for mean weights
//! `c_i = V(ℓ_i; θ)/n`.
//!
//! The vectors `∇ℓ_i(w)` do not depend on θ; the numbers `c_i` do. So if θ moves a little, ŵ moves
//! by `∂ŵ/∂θ = −α Σ_i ∇ℓ_i(w) ∂c_i/∂θ`.
//!
//! **The chain rule.** With `g = ∇L_meta(ŵ)`, the clean loss changes by `⟨g, ∂ŵ/∂θ⟩`:
//!
//! `∂L_meta/∂θ = −α Σ_i ⟨g, ∇ℓ_i(w)⟩ ∂c_i/∂θ = −α Σ_i u_i ∂c_i/∂θ`, with **`u_i = ⟨g, ∇ℓ_i(w)⟩`**.
//!
//! For mean weights this is **`∂L_meta/∂θ = −(α/n) Σ_i u_i ∂V(ℓ_i; θ)/∂θ`**.
//!
//! **What it says.** `u_i` compares two directions in w-space: where the clean loss rises, and
//! where sample i's loss rises. If they agree (`u_i > 0`), a step that lowers `ℓ_i` lowers the
//! clean loss, and descent on θ raises `V(ℓ_i)`. If they disagree, it lowers it. That is all the
//! signal V ever gets: no label, n numbers `u_i` a step, summed up where losses are alike. In the
//! paper's terms, `u_i = (1/m) Σ_j G_ij` with `G_ij = ⟨∇ℓ_j^meta(ŵ), ∇ℓ_i(w)⟩`.
//!
//! **How u is computed.** `u = J_ℓ(w) g`, the Jacobian of the per-sample losses times one vector,
//! is what forward mode gives in one walk: move `w` along `g` and read off how fast each loss
//! changes. No per-sample gradient is ever formed, and the walk costs as much as two forward
//! passes.
//!
//! # Why no Hessian appears
//!
//! Reverse mode straight through the virtual step ([`Route::Reverse`], what
//! `loss.backward(create_graph=True)` does) meets `∂/∂w` of `∇_w φ`, which looks like a
//! Hessian-vector product. But the derivative that is wanted is by θ, at a fixed `w`, and
//! `∇_w φ = J_ℓ(w)ᵀ c(θ)` is *linear* in `c`. What is left of `∂²φ/∂θ∂w` is a mixed derivative,
//! `J_ℓᵀ ∂c/∂θ`: first derivatives of the network, times second derivatives of `φ`, a function of n
//! numbers. The network's curvature `∂²ℓ_i/∂w²` would matter only if `w` itself depended on θ: with
//! several unrolled virtual steps it would. The program agrees: the jvp, and the two reverse walks
//! next to it, ask no operation of the classifier for more than its first derivative.
//!
//! # Normalised weights
//!
//! `φ = Σ V ℓ / S` with `S = Σ V`, so `c_i = V_i/S`, and raising one weight lowers the shares of
//! all others: `∂c_j/∂V_i = (δ_ij − c_j)/S`. Then `Σ_j u_j ∂c_j/∂V_i = (u_i − Σ_j c_j u_j)/S`, that
//! is
//!
//! `∂L_meta/∂θ = −(α/S) Σ_i (u_i − ū) ∂V_i/∂θ`, `ū = Σ_j V_j u_j / S`.
//!
//! A sample must now help more than the batch does on average, and V gains nothing from growing
//! everywhere: if all `V_i` change by the same factor, `Σ (u_i − ū) V_i = 0`.
//!
//! # What holds V's level
//!
//! In the first steps any longer step is a good one: `u_i > 0` for right and wrong labels alike.
//! With mean weights V then rises everywhere, and a sigmoid at 0.99 has a hundredth of its slope
//! left: what comes later can hardly bring V down. With normalised weights the common part falls
//! out, and nothing but V's L2 term holds the level: the sum can become so small that a few samples
//! make up the batch. [`schemes::SoftMwNet`] holds it by what it does with the rest: the weight
//! that a given label does not get goes to a soft label, so that a sample counts 1 whatever V is;
//! and θ rests in the first steps.
//!
//! # Undetached weights
//!
//! If the loss that V reads is not detached, `φ` depends on `ℓ_i` through `V(ℓ_i)` too, and
//! `c = ∇_ℓ φ` has a second term. With `V′ = ∂V/∂ℓ` and `F = Σ V ℓ / S` (the value of the
//! normalised `φ`):
//!
//! - mean: `c_i = (V_i + V′_i ℓ_i)/n`, so `∂L_meta/∂θ = −(α/n) Σ u_i ∂(V_i + V′_i ℓ_i)/∂θ`;
//! - normalised: `c_i = (V_i + V′_i ℓ_i)/S − V′_i Σ V ℓ/S² = (V_i + V′_i (ℓ_i − F))/S`. As `c_i`'s
//!   numerator is linear in `V_i` and `V′_i`, and `∂F/∂V_i = (ℓ_i − F)/S`, the derivatives of
//!   `⟨u, c⟩` are `p_i = (u_i − ⟨u, c⟩)/S − (ℓ_i − F) (Σ_k u_k V′_k)/S²` by `V_i` and
//!   `q_i = u_i (ℓ_i − F)/S` by `V′_i`, and `∂L_meta/∂θ = −α Σ (p_i ∂V_i/∂θ + q_i ∂V′_i/∂θ)`.
//!
//! Here `c_i` can be negative, where V falls steeply: the virtual step then *climbs* on sample i.
//! The tape knows none of these formulas; it differentiates `φ` as recorded.
//! [`ThetaValues::closed_form`] has them as loops, and `tests/derivation.rs` holds the two against
//! each other and against differences of `L_meta` in θ.
//!
//! # Batch norm: why samples need not be independent
//!
//! In train mode, sample i's loss depends on the whole batch through its mean and variance. Did the
//! derivation use that it does not? It used that `φ` is a function of the vector `ℓ(w)`, and the
//! chain rule `∇_w φ = J_ℓ(w)ᵀ ∇_ℓ φ`. Row i of `J_ℓ` is the gradient of `ℓ_i` *including* what it
//! does to the batch statistics; forward mode multiplies by just that Jacobian. Only shortcuts need
//! independence: running sample i alone through the network for `∇ℓ_i`, or scaling its backward
//! signal layer by layer. Likewise `L_meta` is evaluated with the meta batch's own statistics at ŵ,
//! and differentiated through them. The virtual model's running statistics are no part of any loss,
//! and are thrown away.
//!
//! # Momentum in the virtual step
//!
//! With the classifier's own rule ([`VirtualStep::Momentum`]) the virtual step is `ŵ = w − α d`,
//! where, with the gradient `G = Σ c_i ∇ℓ_i + λw` and the buffer `b` from the steps before,
//! `d = μb + G`, or with Nesterov's form `d = G + μ(μb + G)`. Buffer and weight decay do not depend
//! on this step's θ, so they move ŵ, and with it `g`, but the derivative keeps only the factor of
//! the gradient: 1, or `1 + μ` with Nesterov. The formulas above hold with `α (1 + μ)` in place of
//! `α`.
//!
//! # Updating w once: two steps
//!
//! Why not update `w` for real, and θ afterwards at the updated `w`? [`Order::TwoSteps`] does it:
//! the real step is its own virtual step, the formula is the same with `g = ∇L_meta(w⁺)`, and the
//! last backward pass is saved. What is lost is that `w` would move by the weights that have just
//! been improved. `metatape ablate` measures whether that matters.
//!
//! # Several virtual steps, and the inner optimum
//!
//! One virtual step asks what θ does to the very next classifier. With K of them
//! ([`StepConfig::unroll`]), each on a batch of its own, it asks about the classifier K steps on:
//! `w_{k+1} = w_k − α Σ_i c_i(θ, w_k) ∇ℓ_i(w_k)`. From the second step on, losses and gradients
//! depend on θ through the steps before, so the network's second derivatives come in. The tape
//! takes them: the hypergradient is reverse mode through all K steps, exact.
//!
//! For K without end, where the weighted loss has its minimum, the implicit function theorem gives
//! `∂L_meta/∂θ = −∇_θ ⟨J_ℓ v, c(θ)⟩` with `H v = ∇L_meta` and `H` the Hessian of `⟨c, ℓ⟩`
//! ([`crate::bilevel`]). [`Route::Neumann`] takes so many terms of `v = α Σ_j (I − αH)ʲ g`: the
//! first is the step's own hypergradient, and each more looks one step further, with H and g held
//! where they are. [`Route::ImplicitCg`] solves for `v`. Training is nowhere near that minimum, so
//! these are other signals, not better numbers; `metatape hypergrad` shows how far they point from
//! the step's own.
//!
//! # The cost
//!
//! With F one forward pass: F for the losses, 2F for the virtual gradient, 3F for the meta loss and
//! its gradient, 2F for the jvp, 2F for the real gradient (same losses, same `w`): **10F**, where a
//! plain step is 3F and the two orders of reverse mode in the published code are 15F to 19F. All
//! that θ and φ need is work on n numbers.
//!
//! **Where samples do not couple, 8F.** Let `a` be a layer's value and `δ_i = ∂ℓ_i/∂a_i` the signal
//! that one walk back from `Σ ℓ_i` leaves there (F, if the first layer is small). Row i of `δ` is
//! sample i's alone, so *any* weighting of the losses scales its rows: `Σ_i c_i ∇ℓ_i` is a product
//! `Σ_i a_i ⊗ (c_i δ_i)` per layer, F in all, and virtual and real gradient share the walk. The
//! same signals turn forward mode around: `u_i = Σ_layers ⟨δ_i, change of the layer's output along
//! g⟩`, with what is before the layer held; the change needs one product a layer, not two. In all F
//! (losses) + F (signals) + F (virtual) + 3F (meta) + F (u) + F (real): [`Route::Layerwise`], by
//! [`crate::tape::SampleSignals`], and the default. With fewer it does not go: the weights of the
//! real step are known only behind the meta gradient, which needs the virtual step, so each of the
//! four products with the batch (losses, virtual, u, real) has an argument that the others do not.
//! Batch norm couples samples (above), and there the route is the jvp.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `config.rs` | the options of a step |
//! | `step.rs` | the three steps on a tape |
//! | `plain.rs` | a step without weights, and an evaluation |
//! | `route.rs` | the hypergradient, a function a route |
//! | `normalise.rs` | weights that sum to 1 |
//! | `order.rs` | the steps in other orders, for comparison |
//! | `closed_form.rs` | the hypergradient in loops over per-sample numbers, as a check |
//! | `optimiser.rs` | a rule's step of all parameters |
//! | `schemes/` | the field's other reweighting schemes, one file each |

mod closed_form;
mod config;
mod normalise;
mod optimiser;
mod order;
mod plain;
mod route;
pub mod schemes;
mod step;

pub use crate::bilevel::{Adam, Optimiser, Sgd};
pub use closed_form::{ClosedForm, ThetaValues};
pub use config::{Preset, Route, StepConfig, VirtualStep, Weights, probe};
pub use order::Order;
pub use plain::{Evaluation, PlainStep};
pub use step::{Batch, MetaStep};
