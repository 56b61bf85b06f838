//! From a group of entrywise work to the instructions of `kernels/entrywise.cu`: what is computed,
//! in which registers.

use crate::program::{Function, Group, Operand, Outcome};
use crate::tape::{Unary, View3};

macro_rules! codes {
    ($($code:ident = $number:literal $twin:literal),+ $(,)?) => {
        /// What an instruction does. `Code` in `kernels/entrywise.cu` has the same numbers; a test
        /// below reads it there.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(super) enum Code { $($code = $number),+ }

        /// The kernel's names and numbers.
        #[cfg(test)]
        const TWINS: &[(&str, u8)] = &[$(($twin, Code::$code as u8)),+];
    };
}

codes! {
    Add = 0 "ADD",
    Mul = 1 "MUL",
    Mask = 2 "MASK",
    Max = 3 "MAX",
    Scale = 4 "SCALE",
    Offset = 5 "OFFSET",
    Sigmoid = 6 "SIGMOID",
    Recip = 7 "RECIP",
    Sqrt = 8 "SQRT",
    Exp = 9 "EXP",
    Log = 10 "LOG",
    Tanh = 11 "TANH",
    Softplus = 12 "SOFTPLUS",
    Erf = 13 "ERF",
    Pow = 14 "POW",
    Fill = 15 "FILL",
    Number = 16 "NUMBER",
    Repeat = 17 "REPEAT",
    Store = 18 "STORE",
    Sum = 19 "SUM",
}

/// An instruction; registers by number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Instruction {
    /// `to ← code(a, b, c)`.
    Compute { code: Code, to: usize, a: usize, b: usize, c: f32 },
    /// `to ← the one entry of an argument`.
    Number { to: usize, arg: usize },
    /// `to ← an argument [pre, post], repeated along mid`.
    Repeat { to: usize, arg: usize, view: View3 },
    /// An output, entry by entry.
    Store { from: usize, out: usize },
    /// An output that is a sum.
    Sum { from: usize, out: usize },
}

/// A group's instructions.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Assembled {
    /// (register, argument) of all full-size operands: loaded before anything else.
    pub loads: Vec<(usize, usize)>,
    /// What follows, in order.
    pub instructions: Vec<Instruction>,
    /// How many registers there are.
    pub registers: usize,
}

/// A step with constants folded into it.
struct Step {
    code: Code,
    a: usize,
    b: Option<usize>,
    c: f64,
}

/// Assembles a group. A register is taken from the definition of a value to its last use; results
/// are stored, and added to sums, as soon as they are known.
pub(super) fn assemble(group: &Group) -> Assembled {
    let first = group.operands.len();
    let constant = |r: usize| match group.operands.get(r) {
        Some(Operand::Constant(c)) => Some(*c),
        Some(Operand::Full(_) | Operand::Repeat(..)) | None => None,
    };
    let fold = |code: Code, with: Code, a: usize, b: usize| match (constant(a), constant(b)) {
        (_, Some(c)) => Step { code: with, a, b: None, c },
        (Some(c), None) => Step { code: with, a: b, b: None, c },
        (None, None) => Step { code, a, b: Some(b), c: 0.0 },
    };
    let unary = |code: Code, a: usize, c: f64| Step { code, a, b: None, c };
    let steps: Vec<Step> = group
        .steps
        .iter()
        .map(|s| match s.function {
            Function::Add => fold(Code::Add, Code::Offset, s.a, s.b),
            Function::Mul => fold(Code::Mul, Code::Scale, s.a, s.b),
            Function::Mask => Step { code: Code::Mask, a: s.a, b: Some(s.b), c: 0.0 },
            Function::Max => Step { code: Code::Max, a: s.a, b: Some(s.b), c: 0.0 },
            Function::Scale(c) => unary(Code::Scale, s.a, c),
            Function::Offset(c) => unary(Code::Offset, s.a, c),
            Function::Unary(f) => match f {
                Unary::Sigmoid => unary(Code::Sigmoid, s.a, 0.0),
                Unary::Recip => unary(Code::Recip, s.a, 0.0),
                Unary::Sqrt => unary(Code::Sqrt, s.a, 0.0),
                Unary::Exp => unary(Code::Exp, s.a, 0.0),
                Unary::Log => unary(Code::Log, s.a, 0.0),
                Unary::Tanh => unary(Code::Tanh, s.a, 0.0),
                Unary::Softplus => unary(Code::Softplus, s.a, 0.0),
                Unary::Erf => unary(Code::Erf, s.a, 0.0),
                Unary::Pow(c) => unary(Code::Pow, s.a, c.0),
            },
        })
        .collect();
    let mut outcomes = vec![Vec::new(); first + steps.len()];
    for (out, outcome) in group.outcomes.iter().enumerate() {
        let (Outcome::Store(r) | Outcome::Sum(r, _)) = outcome;
        outcomes[*r].push(out);
    }
    // From the last step back: how often each value is used by steps that something needs.
    let mut uses = vec![0; first + steps.len()];
    for (i, step) in steps.iter().enumerate().rev() {
        if uses[first + i] > 0 || !outcomes[first + i].is_empty() {
            uses[step.a] += 1;
            step.b.into_iter().for_each(|b| uses[b] += 1);
        }
    }
    let mut work = Assembler {
        group,
        place: vec![None; uses.len()],
        uses,
        outcomes,
        free: Vec::new(),
        out: Assembled::default(),
    };
    let mut loaded = Vec::new();
    for (r, operand) in group.operands.iter().enumerate() {
        if let (Operand::Full(arg), true) = (operand, work.wanted(r)) {
            let to = work.take(r);
            work.out.loads.push((to, *arg));
            loaded.push(r);
        }
    }
    loaded.into_iter().for_each(|r| work.defined(r));
    for (i, step) in steps.iter().enumerate() {
        if !work.wanted(first + i) {
            continue;
        }
        let a = work.use_of(step.a);
        let b = step.b.map(|b| work.use_of(b));
        work.release(step.a);
        step.b.into_iter().for_each(|b| work.release(b));
        let to = work.take(first + i);
        let (code, c) = (step.code, step.c as f32);
        work.out.instructions.push(Instruction::Compute { code, to, a, b: b.unwrap_or(a), c });
        work.defined(first + i);
    }
    // Operands that only outcomes want, and that have not been loaded.
    for r in 0..first {
        if !work.outcomes[r].is_empty() {
            work.use_of(r);
        }
    }
    work.out
}

struct Assembler<'a> {
    group: &'a Group,
    /// Per value, its register while it has one.
    place: Vec<Option<usize>>,
    /// Per value, uses to come.
    uses: Vec<usize>,
    /// Per value, outputs that it is still to be stored in or added to.
    outcomes: Vec<Vec<usize>>,
    free: Vec<usize>,
    out: Assembled,
}

impl Assembler<'_> {
    fn wanted(&self, value: usize) -> bool {
        self.uses[value] > 0 || !self.outcomes[value].is_empty()
    }

    fn take(&mut self, value: usize) -> usize {
        let register = self.free.pop().unwrap_or_else(|| {
            self.out.registers += 1;
            self.out.registers - 1
        });
        self.place[value] = Some(register);
        register
    }

    /// The value's register; operands that are not full-size are read where they are first wanted.
    fn use_of(&mut self, value: usize) -> usize {
        if let Some(register) = self.place[value] {
            return register;
        }
        let to = self.take(value);
        let instruction = match self.group.operands[value] {
            Operand::Constant(c) => Instruction::Compute { code: Code::Fill, to, a: to, b: to, c: c as f32 },
            Operand::Repeat(arg, view) if view.pre * view.post == 1 => Instruction::Number { to, arg },
            Operand::Repeat(arg, view) => Instruction::Repeat { to, arg, view },
            Operand::Full(_) => unreachable!("full-size operands are loaded first"),
        };
        self.out.instructions.push(instruction);
        self.defined(value);
        to
    }

    /// Does what is to be done with a value that has just been defined.
    fn defined(&mut self, value: usize) {
        let Some(from) = self.place[value] else { return };
        for out in std::mem::take(&mut self.outcomes[value]) {
            self.out.instructions.push(match self.group.outcomes[out] {
                Outcome::Store(_) => Instruction::Store { from, out },
                Outcome::Sum(..) => Instruction::Sum { from, out },
            });
        }
        self.give_back(value);
    }

    /// One use of a value is over.
    fn release(&mut self, value: usize) {
        self.uses[value] -= 1;
        self.give_back(value);
    }

    fn give_back(&mut self, value: usize) {
        if self.uses[value] == 0
            && let Some(register) = self.place[value].take()
        {
            self.free.push(register);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Step;

    /// The numbers and names of `Code` as the kernel's text has them, and a case for each.
    #[test]
    fn the_kernel_has_the_same_codes() {
        let text = crate::backend::cuda::sources::ENTRYWISE.text;
        let list = text.split("enum Code : u32 {").nth(1).and_then(|t| t.split('}').next()).unwrap();
        let theirs: Vec<(&str, u8)> = list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| entry.split_once(" = ").unwrap_or_else(|| panic!("`{entry}` has no number")))
            .map(|(name, number)| (name, number.parse().unwrap()))
            .collect();
        assert_eq!(theirs, TWINS);
        for (name, _) in TWINS {
            assert_eq!(text.matches(&format!("case {name}:")).count(), 1, "cases of {name}");
        }
        assert_eq!(text.matches("case ").count(), TWINS.len(), "cases without a code");
    }

    #[test]
    fn registers_are_used_again_and_what_nobody_needs_is_not_computed() {
        // a·b + 2, relu of it, its sum over rows; and a product that nothing reads.
        let step = |function, a, b| Step { function, a, b };
        let view = View3 { pre: 1, mid: 4, post: 5 };
        let group = Group {
            count: 20,
            operands: vec![Operand::Full(0), Operand::Repeat(1, view), Operand::Constant(2.0)],
            steps: vec![
                step(Function::Mul, 0, 1),
                step(Function::Add, 3, 2),
                step(Function::Mul, 0, 0),
                step(Function::Mask, 4, 4),
            ],
            outcomes: vec![Outcome::Store(6), Outcome::Sum(6, view)],
        };
        let got = assemble(&group);
        assert_eq!(got.registers, 2);
        assert_eq!(got.loads, [(0, 0)]);
        let compute = |code, to, a, b, c| Instruction::Compute { code, to, a, b, c };
        assert_eq!(got.instructions.len(), 6);
        assert_eq!(got.instructions[0], Instruction::Repeat { to: 1, arg: 1, view });
        assert!(matches!(got.instructions[1], Instruction::Compute { code: Code::Mul, a: 0, b: 1, .. }));
        let Instruction::Compute { to, .. } = got.instructions[1] else { panic!("a product") };
        assert_eq!(got.instructions[2], compute(Code::Offset, to, to, to, 2.0));
        assert_eq!(got.instructions[3], compute(Code::Mask, to, to, to, 0.0));
        assert_eq!(
            got.instructions[4..],
            [Instruction::Store { from: to, out: 0 }, Instruction::Sum { from: to, out: 1 }]
        );
    }
}
