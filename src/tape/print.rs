//! The tape as a readable program: one line an operation, `name = operation arguments : shape`.

use std::fmt;

use super::op::{Kind, Op};
use super::record::{Tape, Var};

impl Tape {
    /// The name of a leaf, or `%number`.
    pub fn var_name(&self, var: Var) -> String {
        let op = &self.node(var).op;
        if let Op::Input(i) = op {
            return self.inputs()[*i].0.clone();
        }
        if let Op::State(i) = op {
            return self.states()[*i].0.clone();
        }
        format!("{var:?}")
    }

    /// One value's line of the printed program.
    pub fn line(&self, var: Var) -> String {
        let node = self.node(var);
        let kind = match node.kind {
            Kind::Float => "",
            Kind::Int => " ints",
            Kind::Byte => " bytes",
        };
        let args: Vec<String> = node.args.iter().map(|a| self.var_name(*a)).collect();
        let sep = if args.is_empty() { "" } else { " " };
        let args = args.join(", ");
        format!("{} = {}{sep}{args} : {}{kind}", self.var_name(var), node.op.name(), node.shape)
    }
}

impl fmt::Display for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections = self.sections().iter().peekable();
        for var in self.vars() {
            while let Some((_, title)) = sections.next_if(|(at, _)| *at <= var.index()) {
                writeln!(f, "# {title}")?;
            }
            writeln!(f, "{}", self.line(var))?;
        }
        for (name, var) in self.outputs() {
            writeln!(f, "output {name} = {}", self.var_name(*var))?;
        }
        for (slot, var) in self.updates() {
            writeln!(f, "update {} ← {}", self.var_name(*slot), self.var_name(*var))?;
        }
        Ok(())
    }
}
