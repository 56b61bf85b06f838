//! What a test finds wrong. It goes on after each, as an hour with a card may be the only one, and
//! fails at its end.

#![allow(clippy::print_stdout)]

use super::machines::Tolerance;

/// Prints each thing that is wrong when it is found; panics when it goes out of scope, if there was
/// any.
#[derive(Default)]
pub struct Findings {
    found: usize,
}

impl Findings {
    /// One thing that is wrong.
    pub fn add(&mut self, what: &str) {
        println!("wrong: {what}");
        self.found += 1;
    }

    /// That something is so.
    pub fn hold(&mut self, so: bool, otherwise: impl FnOnce() -> String) {
        if !so {
            self.add(&otherwise());
        }
    }

    /// A result, or what is wrong about it.
    pub fn take<T, E: std::fmt::Display>(&mut self, result: Result<T, E>, what: &str) -> Option<T> {
        result.inspect_err(|e| self.add(&format!("{what}: {e}"))).ok()
    }

    /// An error with its limit; both are printed in any case.
    pub fn error(&mut self, error: f64, most: f64, what: &str) {
        println!("{what} error {error:.2e}, limit {most:.1e}");
        // A NaN is beyond any limit.
        self.hold(error <= most, || format!("{what} has an error of {error:.1e}, more than {most:.1e}"));
    }

    /// One tensor of an operation.
    pub fn tensor(&mut self, tolerance: &Tolerance, got: &[f64], want: &[f64], what: &str) {
        if let Some(deviation) = tolerance.deviation(got, want) {
            self.add(&format!("{what}: {deviation}"));
        }
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        // Whoever panics already says what of.
        if self.found > 0 && !std::thread::panicking() {
            panic!("{} deviations, printed above", self.found);
        }
    }
}
