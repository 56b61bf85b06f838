//! Every page of `examples/` runs, and finds what it says: each checks its own numbers.

#[path = "../examples/hyper_cleaning.rs"]
mod hyper_cleaning;
#[path = "../examples/hyperparameters.rs"]
mod hyperparameters;
#[path = "../examples/maml.rs"]
mod maml;
#[path = "../examples/own_network.rs"]
mod own_network;
#[cfg(feature = "lab")]
#[path = "../examples/own_scheme.rs"]
mod own_scheme;
#[path = "../examples/ridge.rs"]
mod ridge;
#[path = "../examples/second_derivative.rs"]
mod second_derivative;

#[test]
fn hyper_cleaning_runs() {
    hyper_cleaning::main().unwrap();
}

#[test]
fn hyperparameters_runs() {
    hyperparameters::main().unwrap();
}

#[test]
fn maml_runs() {
    maml::main().unwrap();
}

#[test]
fn own_network_runs() {
    own_network::main().unwrap();
}

#[cfg(feature = "lab")]
#[test]
fn own_scheme_runs() {
    own_scheme::main().unwrap();
}

#[test]
fn ridge_runs() {
    ridge::main().unwrap();
}

#[test]
fn second_derivative_runs() {
    second_derivative::main().unwrap();
}

#[test]
fn no_page_is_left_out() {
    let (root, here) = (env!("CARGO_MANIFEST_DIR"), include_str!("examples.rs"));
    let readme = std::fs::read_to_string(format!("{root}/README.md")).unwrap();
    let pages = std::fs::read_dir(format!("{root}/examples")).unwrap();
    let names: Vec<String> =
        pages.map(|p| p.unwrap().path().file_stem().unwrap().display().to_string()).collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        assert!(here.contains(&format!("    {name}::main().unwrap();\n")), "{name} is not run");
        assert!(readme.contains(&format!("`examples/{name}.rs`")), "the README does not point to {name}");
    }
}
