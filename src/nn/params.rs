use rand::Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::error::{Error, Result};
use crate::tape::{Kind, Shape, Tape, Var};

/// A parameter: `<layer>.<role>`, as in `block3.conv1.weight`.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// Layer and role.
    pub name: String,
    /// Extents.
    pub shape: Shape,
    /// Value before training.
    pub init: Init,
}

/// How a parameter begins.
#[derive(Clone, PartialEq, Debug)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Uniform in ± this bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// These numbers.
    Given(Vec<f64>),
}

impl Param {
    /// A parameter.
    pub fn new(name: impl Into<String>, shape: impl Into<Shape>, init: Init) -> Param {
        Param { name: name.into(), shape: shape.into(), init }
    }

    /// Weight `[i, o]` and bias `[o]` of a linear layer, with PyTorch's default U(±1/√i).
    pub fn linear(layer: &str, i: usize, o: usize) -> [Param; 2] {
        let init = Init::Uniform(1.0 / (i as f64).sqrt());
        [
            Param::new(format!("{layer}.weight"), [i, o], init.clone()),
            Param::new(format!("{layer}.bias"), [o], init),
        ]
    }

    /// A k×k convolution's weight with Kaiming-normal initialisation: standard deviation √(2/fan).
    pub fn conv_normal(layer: &str, k: usize, i: usize, o: usize, fan: usize) -> Param {
        Param::new(format!("{layer}.weight"), [k, k, i, o], Init::Normal((2.0 / fan as f64).sqrt()))
    }

    /// Scale (1) and bias (0) of a batch norm over `c` channels.
    pub fn norm(layer: &str, c: usize) -> [Param; 2] {
        [
            Param::new(format!("{layer}.scale"), [c], Init::Constant(1.0)),
            Param::new(format!("{layer}.bias"), [c], Init::Constant(0.0)),
        ]
    }

    /// The parameter's first value.
    pub fn initial(&self, rng: &mut impl Rng) -> Vec<f64> {
        let count = self.shape.count();
        match &self.init {
            Init::Constant(c) => vec![*c; count],
            Init::Given(values) => values.clone(),
            Init::Uniform(bound) => match Uniform::new_inclusive(-bound, *bound) {
                Ok(uniform) => uniform.sample_iter(rng).take(count).collect(),
                Err(_) => vec![0.0; count],
            },
            Init::Normal(std) => match Normal::new(0.0, *std) {
                Ok(normal) => normal.sample_iter(rng).take(count).collect(),
                Err(_) => vec![0.0; count],
            },
        }
    }
}

/// A network's parameters as values on a tape.
#[derive(Clone, Debug)]
pub struct Params {
    /// In the network's order.
    pub list: Vec<(String, Var)>,
}

impl Params {
    /// Declares every parameter as the state `<prefix>.<name>`.
    pub fn states(tape: &mut Tape, prefix: &str, params: &[Param]) -> Result<Params> {
        let mut list = Vec::with_capacity(params.len());
        for p in params {
            let var = tape.state(&format!("{prefix}.{}", p.name), Kind::Float, p.shape.clone())?;
            list.push((p.name.clone(), var));
        }
        Ok(Params { list })
    }

    /// The same names with other values.
    pub fn with(&self, vars: Vec<Var>) -> Params {
        let list = self.list.iter().zip(vars).map(|((name, _), var)| (name.clone(), var)).collect();
        Params { list }
    }

    /// The values, in order.
    pub fn vars(&self) -> Vec<Var> {
        self.list.iter().map(|p| p.1).collect()
    }

    /// The value called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<Var> {
        let found = self.list.iter().find(|p| p.0 == name);
        found.map(|p| p.1).ok_or_else(|| Error::Program(format!("the network has no parameter `{name}`")))
    }

    /// Names every value as the output `<prefix>.<name>`.
    ///
    /// # Errors
    /// If a value is of another tape.
    pub fn output(&self, tape: &mut Tape, prefix: &str) -> Result<()> {
        self.list.iter().try_for_each(|(name, var)| tape.output(&format!("{prefix}.{name}"), *var))
    }
}
