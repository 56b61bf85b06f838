use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::facts::Work;
use super::init::First;
use super::op::{Kind, Op, Scalar};
use super::shape::Shape;
use crate::error::{Error, Result};

/// A value on a tape: the tape's number, and the place of the operation that makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Var {
    tape: u32,
    index: u32,
}

impl Var {
    /// Place on the tape, from 0.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.index)
    }
}

/// No two tapes of a process have one number, so that a value of another tape is told from one's
/// own.
static TAPES: AtomicU32 = AtomicU32::new(0);

struct Id(u32);

impl Default for Id {
    fn default() -> Id {
        Id(TAPES.fetch_add(1, Ordering::Relaxed))
    }
}

/// One recorded operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// On what.
    pub args: Vec<Var>,
    /// The result's shape.
    pub shape: Shape,
    /// What the result's entries are.
    pub kind: Kind,
}

/// A Wengert list with named inputs, state slots, outputs and updates: the text of a program.
///
/// Recording an operation a second time on the same arguments gives the first one's value back
/// (hash-consing), so the walks share everything that they need of the primal program without
/// keeping track of it. Where a value must be told from its equals, to differentiate by the one and
/// not by the others, give it a name of its own with [`Tape::variable`].
///
/// Values of another tape are refused by all that gives a `Result`; what gives none says if it
/// panics.
#[derive(Default)]
pub struct Tape {
    id: Id,
    /// Whether operations are folded into each other: only where nothing is differentiated any
    /// more.
    pub(super) folds: bool,
    nodes: Vec<Node>,
    seen: HashMap<(Op, Vec<Var>, Shape), Var>,
    /// Leaves by whether they are states, and name.
    leaves: HashMap<(bool, String), Var>,
    inputs: Vec<(String, Var)>,
    states: Vec<(String, Var)>,
    /// First values of those states that have one of their own.
    firsts: HashMap<String, First>,
    outputs: Vec<(String, Var)>,
    updates: Vec<(Var, Var)>,
    sections: Vec<(usize, String)>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape::default()
    }

    /// An empty tape for a program that is not differentiated any more.
    pub(crate) fn folding() -> Tape {
        Tape { folds: true, ..Tape::new() }
    }

    /// Declares a tensor that is given anew for each run.
    pub fn input(&mut self, name: &str, kind: Kind, shape: impl Into<Shape>) -> Result<Var> {
        let (leaf, new) = self.leaf(Op::Input(self.inputs.len()), name, kind, shape.into())?;
        self.inputs.extend(new);
        Ok(leaf)
    }

    /// Declares a tensor that stays on the device between runs and is shared by every program of a
    /// session that names it. It begins as zeros.
    pub fn state(&mut self, name: &str, kind: Kind, shape: impl Into<Shape>) -> Result<Var> {
        let (leaf, new) = self.leaf(Op::State(self.states.len()), name, kind, shape.into())?;
        self.states.extend(new);
        Ok(leaf)
    }

    /// As [`Tape::state`], with a first value; the first declaration of a name decides it.
    ///
    /// # Errors
    /// If the name was declared with another shape or kind before, or `first` is not for numbers of
    /// this shape.
    pub fn state_from(
        &mut self,
        name: &str,
        kind: Kind,
        shape: impl Into<Shape>,
        first: First,
    ) -> Result<Var> {
        let shape = shape.into().checked(name)?;
        if kind != Kind::Float || !first.init.fits(shape.count()) {
            let detail = format!("its first value is not one finite number for each of {shape} {kind:?}");
            return Err(Error::shape(name, detail));
        }
        let var = self.state(name, kind, shape)?;
        self.firsts.entry(name.to_owned()).or_insert(first);
        Ok(var)
    }

    /// The first value of a state that has one of its own.
    pub fn first_value(&self, state: &str) -> Option<&First> {
        self.firsts.get(state)
    }

    /// The leaf called `name`, and what is to be listed if it is a new one.
    fn leaf(&mut self, op: Op, name: &str, kind: Kind, shape: Shape) -> Result<(Var, Option<(String, Var)>)> {
        let key = (matches!(op, Op::State(_)), name.to_owned());
        if let Some(var) = self.leaves.get(&key) {
            let node = self.node(*var);
            if node.kind == kind && node.shape == shape {
                return Ok((*var, None));
            }
            let detail =
                format!("declared as {:?} {} before, now as {kind:?} {shape}", node.kind, node.shape);
            return Err(Error::shape(name, detail));
        }
        let var = self.append(op, Vec::new(), shape.checked(name)?, kind);
        self.leaves.insert(key, var);
        Ok((var, Some((name.to_owned(), var))))
    }

    /// A tensor with the number `value` everywhere.
    pub fn constant(&mut self, value: f64, shape: impl Into<Shape>) -> Var {
        let shape = shape.into();
        self.intern(Op::Constant(Scalar(value)), Vec::new(), shape, Kind::Float)
    }

    /// Names a value that can be read after a run; of two of one name the later one counts.
    ///
    /// # Errors
    /// If `var` is of another tape.
    pub fn output(&mut self, name: &str, var: Var) -> Result<()> {
        self.own(var, || format!("output `{name}`"))?;
        self.outputs.retain(|(n, _)| n != name);
        self.outputs.push((name.to_owned(), var));
        Ok(())
    }

    /// At the end of a run, `slot` takes the value of `var`.
    ///
    /// # Errors
    /// If `slot` is not a state of numbers (labels and pixels are written from outside only) or
    /// takes another value already, the shapes differ, or one of the two is of another tape.
    pub fn update(&mut self, slot: Var, var: Var) -> Result<()> {
        let name = || "update".to_owned();
        let (to, from) = (self.own(slot, name)?, self.own(var, name)?);
        let fits = to.kind == Kind::Float && from.kind == Kind::Float && to.shape == from.shape;
        let (Op::State(_), true) = (&to.op, fits) else {
            let detail = format!(
                "only a floating-point state takes a value of its shape, got {:?} {} for {:?} {}",
                from.kind, from.shape, to.kind, to.shape
            );
            return Err(Error::shape("update", detail));
        };
        match self.updates.iter().find(|(s, _)| *s == slot) {
            None => self.updates.push((slot, var)),
            Some((_, have)) if *have == var => {}
            Some((_, have)) => {
                let detail = format!(
                    "{} cannot take {var:?}: it takes {have:?} already at the end of a run; give each rule's moments a name of their own",
                    self.var_name(slot)
                );
                return Err(Error::Value { op: "update".into(), detail });
            }
        }
        Ok(())
    }

    /// Starts a part of the program, named in its printed form.
    pub fn section(&mut self, title: &str) {
        self.sections.push((self.nodes.len(), title.to_owned()));
    }

    /// Records `op` on `args`, checking shapes; `shape` is needed where the arguments do not
    /// determine the result's.
    ///
    /// # Errors
    /// If kinds or shapes do not fit the operation, or an argument is of another tape.
    pub fn push(&mut self, op: Op, args: &[Var], shape: Option<&Shape>) -> Result<Var> {
        let described = |arg: &Var| self.own(*arg, || op.name()).map(|node| (node.kind, &node.shape));
        let described = args.iter().map(described).collect::<Result<Vec<_>>>()?;
        let (kind, shape) = op.infer(&described, shape)?;
        let simpler = self.simplify(&op, args, &shape);
        Ok(simpler.unwrap_or_else(|| self.intern(op, args.to_vec(), shape, kind)))
    }

    fn intern(&mut self, op: Op, mut args: Vec<Var>, shape: Shape, kind: Kind) -> Var {
        match op.facts().work {
            // Each of these is a value of its own, to differentiate by.
            Work::Name => return self.append(op, args, shape, kind),
            // a+b and b+a are one value.
            Work::Entrywise(function) if function.commutes() => args.sort(),
            Work::Entrywise(_) | Work::Leaf | Work::Constant(_) | Work::Repeat { .. } | Work::Same => {}
            Work::Part(_) | Work::Sum { .. } | Work::Contract(..) | Work::Kernel => {}
        }
        let key = (op, args, shape);
        if let Some(var) = self.seen.get(&key) {
            return *var;
        }
        let var = self.append(key.0.clone(), key.1.clone(), key.2.clone(), kind);
        self.seen.insert(key, var);
        var
    }

    /// `var` once more, as another value: for whoever orders what is run, and says when.
    pub(crate) fn twin(&mut self, var: Var) -> Var {
        let Node { op, args, shape, kind } = self.node(var).clone();
        self.append(op, args, shape, kind)
    }

    fn append(&mut self, op: Op, args: Vec<Var>, shape: Shape, kind: Kind) -> Var {
        let index = u32::try_from(self.nodes.len()).expect("a tape holds fewer than 2^32 operations");
        let var = Var { tape: self.id.0, index };
        self.nodes.push(Node { op, args, shape, kind });
        var
    }

    /// The operation that makes `var`.
    ///
    /// # Panics
    /// If `var` is of another tape.
    pub fn node(&self, var: Var) -> &Node {
        assert!(var.tape == self.id.0, "{var:?} is a value of another tape");
        &self.nodes[var.index()]
    }

    /// The shape of `var`.
    ///
    /// # Panics
    /// If `var` is of another tape.
    pub fn shape(&self, var: Var) -> &Shape {
        &self.node(var).shape
    }

    /// The operation that makes `var`; `asking` names what takes it.
    ///
    /// # Errors
    /// If `var` is of another tape.
    pub(crate) fn own(&self, var: Var, asking: impl FnOnce() -> String) -> Result<&Node> {
        if var.tape == self.id.0 {
            return Ok(&self.nodes[var.index()]);
        }
        let detail = format!("{var:?} is a value of another tape; record what it is made of on this one");
        Err(Error::Value { op: asking(), detail })
    }

    /// The value at place `index`.
    pub(crate) fn at(&self, index: usize) -> Var {
        Var { tape: self.id.0, index: index as u32 }
    }

    /// Number of recorded operations.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All values, in the order of recording.
    pub fn vars(&self) -> impl DoubleEndedIterator<Item = Var> + use<> {
        let tape = self.id.0;
        (0..self.nodes.len() as u32).map(move |index| Var { tape, index })
    }

    /// Named inputs, in the order of declaration.
    pub fn inputs(&self) -> &[(String, Var)] {
        &self.inputs
    }

    /// Named state slots, in the order of declaration.
    pub fn states(&self) -> &[(String, Var)] {
        &self.states
    }

    /// Named outputs.
    pub fn outputs(&self) -> &[(String, Var)] {
        &self.outputs
    }

    /// What outputs name and slots take.
    pub(crate) fn results(&self) -> impl Iterator<Item = Var> {
        self.outputs.iter().map(|o| o.1).chain(self.updates.iter().map(|u| u.1))
    }

    /// Pairs (state slot, the value that it takes at the end of a run).
    pub fn updates(&self) -> &[(Var, Var)] {
        &self.updates
    }

    /// Titles of the program's parts and the operation that each begins at.
    pub fn sections(&self) -> &[(usize, String)] {
        &self.sections
    }
}
