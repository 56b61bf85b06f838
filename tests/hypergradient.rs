//! Layer 3: all routes to the hypergradient agree on every network, in f64, with and without
//! fusion; on one thread and on several the bits are the same.

mod common;

use common::steps::{M, N, all_outputs, networks, prepare, relative_error, run};
use metatape::backend::cpu::Cpu;
use metatape::meta::{Route, StepConfig, VirtualStep, Weights};
use metatape::program::{Options, Values};

fn configs() -> Vec<StepConfig> {
    let mut all = Vec::new();
    for weights in [Weights::Mean, Weights::Normalised] {
        for undetached in [false, true] {
            for virtual_step in [VirtualStep::Plain, VirtualStep::Momentum] {
                let mut config =
                    StepConfig { weights, undetached, virtual_step, probe: 1e-5, ..Default::default() };
                config.classifier.nesterov = undetached;
                all.push(config);
            }
        }
    }
    all
}

#[test]
fn routes_agree_on_every_network_and_option() {
    for net in networks() {
        for config in configs() {
            let of = |route, fuse| {
                let config = StepConfig { route, ..config.clone() };
                let (session, program) = run(&net, &config, Options { fuse }, 1);
                all_outputs(&session, &program, "hypergrad.")
            };
            let reference = of(Route::Reverse, true);
            assert!(reference.iter().any(|g| g.abs() > 1e-9), "{net:?}: the hypergradient vanishes");
            for (route, tolerance) in [
                (Route::Jvp, 1e-11),
                (Route::Layerwise, 1e-11),
                (Route::PerSample, 1e-11),
                (Route::FiniteDifference, 1e-5),
            ] {
                let error = relative_error(&of(route, true), &reference);
                assert!(error < tolerance, "{net:?} {config:?} {route}: relative error {error:e}");
            }
            for route in [Route::Reverse, Route::Jvp, Route::Layerwise] {
                let error = relative_error(&of(route, false), &reference);
                assert!(error < 1e-11, "{net:?} {config:?} {route} unfused: relative error {error:e}");
            }
        }
    }
}

/// The first term of the Neumann series is the step's own hypergradient; more terms are another
/// one, and come to that of conjugate gradients where the series converges.
#[test]
fn routes_of_the_inner_optimum_begin_at_the_step() {
    for net in networks() {
        let of = |route| {
            let config = StepConfig { route, ..StepConfig::default() };
            let (session, program) = run(&net, &config, Options::default(), 1);
            all_outputs(&session, &program, "hypergrad.")
        };
        let own = of(Route::Jvp);
        let error = relative_error(&of(Route::Neumann(1)), &own);
        assert!(error < 1e-12, "{net:?}: one term is not the step's own: {error:e}");
        assert!(relative_error(&of(Route::Neumann(2)), &own) > 1e-6, "{net:?}: the second term is nothing");
        for n in [1, 3, 8] {
            let cg = of(Route::ImplicitCg(n));
            assert!(cg.iter().all(|g| g.is_finite()) && cg.iter().any(|g| *g != 0.0), "{net:?}, {n}: {cg:?}");
        }
    }
}

/// Where V is flat, normalised weights do not change with its output bias: its hypergradient is 0,
/// and not what rounding leaves of a sum, of which Adam would take the sign.
#[test]
fn a_flat_v_has_no_hypergradient_by_its_output_bias() {
    let config = |route| StepConfig { weights: Weights::Normalised, route, ..StepConfig::default() };
    for net in networks() {
        for route in [Route::Jvp, Route::Layerwise, Route::Reverse, Route::PerSample, Route::FiniteDifference]
        {
            for fuse in [true, false] {
                let cpu = Box::new(Cpu::<f32>::new(1).unwrap());
                let (mut session, program) = prepare(&net, &config(route), Options { fuse }, [N, M], cpu);
                session.write_state("theta.fc2.weight", Values::Float(&[0.0; 5])).unwrap();
                session.run(&program).unwrap();
                let of = |name: &str| session.fetch(&program, &format!("hypergrad.fc2.{name}")).unwrap();
                assert_eq!(of("bias"), [0.0], "{net:?} {route}");
                assert!(of("weight").iter().any(|g| g.abs() > 1e-6), "{net:?} {route}: {:?}", of("weight"));
            }
        }
    }
}

/// A V whose output bias has run far down is still a number, and so is its hypergradient.
#[test]
fn a_bias_far_below_leaves_numbers() {
    let config = StepConfig { weights: Weights::Normalised, ..StepConfig::default() };
    for bias in [-30.0, -200.0, 200.0] {
        let cpu = Box::new(Cpu::<f32>::new(1).unwrap());
        let (mut session, program) = prepare(&networks()[0], &config, Options::default(), [N, M], cpu);
        session.write_state("theta.fc2.bias", Values::Float(&[bias])).unwrap();
        session.write_state("theta.fc2.weight", Values::Float(&[150.0; 5])).unwrap();
        session.run(&program).unwrap();
        for name in ["hypergrad.", "w_next.", "weight"] {
            let values = all_outputs(&session, &program, name);
            assert!(!values.is_empty() && values.iter().all(|v| v.is_finite()), "{bias} {name}: {values:?}");
        }
    }
}

#[test]
fn fusion_and_threads_change_nothing() {
    for net in networks() {
        let config = StepConfig::default();
        let (one, program) = run(&net, &config, Options::default(), 1);
        let (three, same) = run(&net, &config, Options::default(), 3);
        let (plain, unfused) = run(&net, &config, Options { fuse: false }, 1);
        for state in one.states().to_vec() {
            let name = &state.name;
            let value = one.read_state(name).unwrap();
            assert_eq!(value, three.read_state(name).unwrap(), "{net:?}: {name} on one and on three threads");
            let error = relative_error(&plain.read_state(name).unwrap(), &value);
            assert!(error < 1e-12, "{net:?}: {name} without fusion: {error:e}");
        }
        for output in program.outputs() {
            let value = one.fetch(&program, &output.name).unwrap();
            assert_eq!(value, three.fetch(&same, &output.name).unwrap(), "{net:?}: {}", output.name);
            let error = relative_error(&plain.fetch(&unfused, &output.name).unwrap(), &value);
            assert!(error < 1e-11, "{net:?}: {} without fusion: {error:e}", output.name);
        }
    }
}
