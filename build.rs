//! Tells the tests whether there is a C++ compiler (`cfg(simulator)`): they compile `kernels/*.cu`
//! for a CPU with it, and are reported as ignored without one. METATAPE_REQUIRE_SIMULATOR=1 says
//! that there must be one; the tests then fail where there is none.

use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-env-changed=CXX");
    println!("cargo::rerun-if-env-changed=METATAPE_REQUIRE_SIMULATOR");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(simulator)");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut ask = Command::new(compiler);
    let answer = ask.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let required = std::env::var_os("METATAPE_REQUIRE_SIMULATOR").is_some_and(|v| v == "1");
    if required || answer.is_ok_and(|status| status.success()) {
        println!("cargo::rustc-cfg=simulator");
    }
}
