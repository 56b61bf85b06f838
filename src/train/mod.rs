//! Training.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `setup.rs` | first values of all states |

pub mod setup;
