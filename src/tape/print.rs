//! The tape as a readable program: one line an operation, `name = operation arguments : shape`.

use std::fmt;

use super::op::{Form, Kind, Op, Role, Unary};
use super::record::{Tape, Var};

impl Op {
    /// The operation as printed, without its arguments.
    pub fn name(&self) -> String {
        match self {
            Op::Input(_) => "input".into(),
            Op::State(_) => "state".into(),
            Op::Constant(c) => format!("constant {}", c.0),
            Op::Add => "add".into(),
            Op::Scale(c) => format!("scale {}", c.0),
            Op::Offset(c) => format!("offset {}", c.0),
            Op::Unary(Unary::Sigmoid) => "sigmoid".into(),
            Op::Unary(Unary::Recip) => "recip".into(),
            Op::Unary(Unary::Sqrt) => "sqrt".into(),
            Op::Unary(Unary::Exp) => "exp".into(),
            Op::Unary(Unary::Log) => "log".into(),
            Op::Contract { form: Form::Mul, .. } => "mul".into(),
            Op::Contract { form: Form::Gemm, out } => match out {
                Role::C => "gemm".into(),
                Role::A => "gemm→A (B, C ↦ C·Bᵀ)".into(),
                Role::B => "gemm→B (A, C ↦ Aᵀ·C)".into(),
            },
            Op::Contract { form: Form::Conv(g), out } => {
                let role = match out {
                    Role::C => "",
                    Role::A => "→A (data gradient)",
                    Role::B => "→B (weight gradient)",
                };
                format!("conv{role} stride {} pad {}", g.stride, g.pad)
            }
            Op::Mask => "mask".into(),
            Op::Select(w) => format!("select {}x{} stride {}", w.size, w.size, w.stride),
            Op::Unselect(w) => format!("unselect {}x{} stride {}", w.size, w.size, w.stride),
            Op::Sum { from, to } => format!("sum axes {from}..{to}"),
            Op::Broadcast { from, to } => format!("broadcast axes {from}..{to}"),
            Op::Reshape => "reshape".into(),
            Op::Variable => "variable".into(),
            Op::Detach => "detach".into(),
            Op::Row(i) => format!("row {i}"),
            Op::Unrow(i) => format!("unrow {i}"),
            Op::Stack => "stack".into(),
            Op::Subsample(s) => format!("subsample {} channels {}+{}", s.stride, s.before, s.after),
            Op::Embed(s) => format!("embed {} channels {}+{}", s.stride, s.before, s.after),
            Op::Moments => "moments".into(),
            Op::Variance => "variance".into(),
            Op::Normalise(_) => "normalise".into(),
            Op::NormJacobian(_) => "norm-jacobian".into(),
            Op::Softmax => "softmax".into(),
            Op::CrossEntropy => "cross-entropy".into(),
            Op::Residual => "residual".into(),
            Op::WeightedResidual => "weighted residual".into(),
            Op::Correct => "correct".into(),
            Op::Gather(_) => "gather".into(),
        }
    }
}

impl Tape {
    /// The name of a leaf, or `%number`.
    pub fn var_name(&self, var: Var) -> String {
        match self.node(var).op {
            Op::Input(i) => self.inputs()[i].0.clone(),
            Op::State(i) => self.states()[i].0.clone(),
            _ => format!("%{}", var.index()),
        }
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
