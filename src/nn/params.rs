use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::seed::Stream;
use crate::tape::{First, Init, Kind, Shape, Tape, Var};

/// A network's parameters as values on a tape, by name: `<layer>.<role>`, as in
/// `block3.conv1.weight`.
///
/// They begin empty; a layer declares its parameters where it is first used. So the forward pass is
/// the only list of them, and after it they stand here in its order.
#[derive(Clone, Debug)]
pub struct Params {
    list: Vec<(String, Var)>,
    places: HashMap<String, usize>,
    home: Option<Home>,
}

/// Where a parameter that is not there yet is declared.
#[derive(Clone, Debug)]
struct Home {
    /// The state's name is `<prefix>.<name>`.
    prefix: String,
    /// What its first value is drawn from; the counter is the parameter's place.
    stream: Stream,
}

impl Params {
    /// No parameters yet: layers declare them as the states `<prefix>.<name>`, whose random first
    /// values are drawn from `stream` by their places. So two networks of one stream begin alike.
    pub fn declared(prefix: &str, stream: Stream) -> Params {
        let home = Some(Home { prefix: prefix.to_owned(), stream });
        Params { list: Vec::new(), places: HashMap::new(), home }
    }

    /// A classifier's own: the states `w.*`.
    pub fn classifier() -> Params {
        Params::declared("w", Stream::Classifier)
    }

    /// The weight net's: the states `theta.*`.
    pub fn weight_net() -> Params {
        Params::declared("theta", Stream::WeightNet)
    }

    /// The same names with other values, in their order; no layer can add to them. A parameter
    /// beyond the list's end is one that there is none of.
    pub fn with(&self, vars: Vec<Var>) -> Params {
        let list = self.list.iter().zip(vars).map(|((name, _), var)| (name.clone(), var)).collect();
        Params { list, places: self.places.clone(), home: None }
    }

    /// Names and values, in the order of the forward pass.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Var)> {
        self.list.iter().map(|(name, var)| (name.as_str(), *var))
    }

    /// The values, in order.
    pub fn vars(&self) -> Vec<Var> {
        self.list.iter().map(|p| p.1).collect()
    }

    /// The parameter called `name`; where it is first asked for, it is declared.
    ///
    /// # Errors
    /// If it has another shape, or there is none and these parameters are given.
    pub fn param(&mut self, tape: &mut Tape, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        let shape = shape.into();
        if let Some((_, var)) = self.places.get(name).and_then(|at| self.list.get(*at)) {
            let have = tape.shape_of(name, *var)?;
            if have != shape {
                let detail = format!(
                    "has the shape {have}, and {shape} is wanted here; give each layer a name of its own"
                );
                return Err(Error::shape(format!("parameter `{name}`"), detail));
            }
            return Ok(*var);
        }
        let Some(Home { prefix, stream }) = &self.home else {
            return Err(Error::Program(format!(
                "the network has no parameter `{name}` in this pass, but had none in an earlier one"
            )));
        };
        let first = First { init, stream: *stream, counter: self.list.len() as u64 };
        let var = tape.state_from(&format!("{prefix}.{name}"), Kind::Float, shape, first)?;
        self.places.insert(name.to_owned(), self.list.len());
        self.list.push((name.to_owned(), var));
        Ok(var)
    }

    /// Names every value as the output `<prefix>.<name>`.
    ///
    /// # Errors
    /// If the values are of another tape.
    pub fn output(&self, tape: &mut Tape, prefix: &str) -> Result<()> {
        self.iter().try_for_each(|(name, var)| tape.output(&format!("{prefix}.{name}"), var))
    }
}
