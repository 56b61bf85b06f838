//! The two questions that the method leaves open, answered by experiment: (a) does the meta set
//! have to be clean, balanced, large, or separate at all? (b) why three steps, and why the exact
//! hypergradient?
//!
//! Each [`Variant`] changes one thing of the published method. All variants of a seed share the
//! training set with its noise, the first parameters and the order of batches, so that differences
//! are taken seed by seed.
//!
//! # The cosine
//!
//! At two steps of every epoch, a variant's hypergradient is compared with *the exact one*: that of
//! the published step ([`crate::meta::Order::Gradient`] by the jvp route) at the same w and θ, with
//! the same training batch and the meta batch that the published variant would take, from the clean
//! balanced meta set. The variant's own hypergradient is what its θ moves by:
//!
//! - another meta set: the published step's, on a batch of that set;
//! - two steps: at w⁺, through the real step;
//! - alternation: the last one that was computed, at the w and on the batches of that moment;
//! - finite differences: on the same batches, by differences.
//!
//! Two clean batches give different hypergradients as well. That is the yardstick for the first
//! kind: of the published variant, the cosine between its own batch and another clean one is
//! measured too.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `variant.rs` | the variants by name, and their meta sets |
//! | `arm.rs` | a variant as an arm of a study, kept while it is trained |
//! | `probes.rs` | the cosines along a training |
//! | `findings.rs` | differences with their intervals, and the study's files |
//! | `conclusions.rs` | the paragraph of conclusions |
//! | `pictures.rs` | the study's plots |

mod arm;
mod conclusions;
mod findings;
mod pictures;
mod probes;
mod variant;

pub use findings::{Findings, Row};
pub use variant::{IMBALANCE, META_SIZE, Variant, default_meta_size};
