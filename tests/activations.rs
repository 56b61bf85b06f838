//! Which tensors of a program are activations, to be stored in fewer bits: the images of
//! convolutions, never what is kept, read out or summed.

mod common;

use metatape::meta::{Batch, MetaStep, StepConfig};
use metatape::nn::{WeightNet, WeightNetInit};
use metatape::program::{Kernel, Options, Place, Plan, Tensor};
use metatape::tape::{Form, GatherSpec, Kind, Role, Scalar, Tape};

#[test]
fn activations_are_images_alone_and_are_read_as_they_were_written() {
    for net in common::steps::networks() {
        for (everything, fuse) in [(false, true), (true, true), (true, false)] {
            let weight_net =
                WeightNet { hidden: 5, init: WeightNetInit::Kinks, slope: 1.0, groups: Vec::new() };
            let channels = net.image[2];
            let spec =
                GatherSpec { mean: vec![Scalar(0.5); channels], std: vec![Scalar(0.3); channels], pad: 0 };
            let (config, data) = (StepConfig::default(), Batch::Picked { count: 9, image: net.image, spec });
            let mut tape = Tape::new();
            let step = MetaStep {
                net: net.model.as_ref(),
                weight_net: &weight_net,
                config: &config,
                data: &data,
                batch: [4; 2],
            };
            step.record(&mut tape, everything).unwrap();
            let plan = Plan::new(&tape, Options { fuse }).unwrap();

            let mut written: Vec<(usize, Tensor)> = Vec::new();
            let mut images = 0;
            for instr in &plan.instrs {
                let what = format!("{}, {}", net.name, instr.kernel.name());
                for arg in &instr.args {
                    let Place::Arena(at) = arg.place else { continue };
                    let holder = written.iter().rev().find(|(from, t)| (*from..from + t.len).contains(&at));
                    let (from, holder) = holder.unwrap_or_else(|| panic!("{what} reads what nothing wrote"));
                    assert_eq!(holder.activation, arg.activation, "{what}: stored otherwise than read");
                    assert!(
                        *from == at || !arg.activation,
                        "{what}: an activation begins amid another tensor"
                    );
                }
                for tensor in instr.outs.iter().chain(&instr.args).filter(|t| t.activation) {
                    assert!(matches!(tensor.place, Place::Arena(_)), "{what}: not in the arena: {tensor:?}");
                    assert_eq!(tensor.kind, Kind::Float, "{what}");
                }
                for out in &instr.outs {
                    if let Place::Arena(at) = out.place {
                        written.retain(|(from, t)| from + t.len <= at || at + out.len <= *from);
                        written.push((at, *out));
                    }
                }
                match &instr.kernel {
                    Kernel::Contract { form: Form::Conv(_), out, .. } => {
                        let roles = out.others().into_iter().zip(&instr.args).chain([(*out, &instr.outs[0])]);
                        for (role, tensor) in roles {
                            let inside = matches!(tensor.place, Place::Arena(_));
                            assert_eq!(tensor.activation, inside && role != Role::B, "{what}: role {role:?}");
                            images += usize::from(tensor.activation);
                        }
                    }
                    Kernel::Moments(_) | Kernel::CrossEntropy | Kernel::Correct => {
                        assert!(!instr.outs[0].activation, "{what}: statistics and losses");
                    }
                    _ => {}
                }
            }
            assert!(plan.outputs.iter().all(|(_, tensor)| !tensor.activation), "{}", net.name);
            let convolutional = net.name != "small mlp";
            assert_eq!(images > 0, convolutional, "{}", net.name);
        }
    }
}
