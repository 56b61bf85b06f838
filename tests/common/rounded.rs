//! The CPU in f64 with a precision's roundings put in where the precision is defined to round, and
//! nowhere else: what a machine of that precision computes but for the order and the f32 of its
//! sums. What is left between the two is then the machine's own error.

use std::collections::HashMap;

use half::bf16;
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::error::Result;
use metatape::program::{Backend, Dims, Instr, Kernel, Named, Place, Plan, Tensor, Values};
use metatape::tape::{Kind, Shape};

/// From an f64 to the nearest, or another, number of fewer bits.
pub type Rounding = fn(f64) -> f64;

/// Whose roundings, and the machine that computes between them.
pub struct Rounded {
    precision: Precision,
    /// How factors of matrix products become tf32.
    products: Rounding,
    /// What becomes of results before they are stored; `None`: nothing.
    sums: Option<Rounding>,
    cpu: Cpu<f64>,
    /// The CPU's states so far: the session's, then arenas, inputs and copies of programs among
    /// them.
    states: usize,
    /// The session's states, as the CPU numbers them.
    given: Vec<usize>,
    programs: Vec<Loaded>,
    /// The CPU's programs so far.
    pieces: usize,
}

/// A plan taken apart.
struct Loaded {
    steps: Vec<Step>,
    arena: usize,
    /// The session's states and the inputs, as the CPU numbers them.
    states: Vec<usize>,
    inputs: Vec<usize>,
}

/// What a run consists of.
enum Step {
    /// One of the CPU's programs.
    Run(usize),
    /// Rounds a state of so many entries.
    Round(usize, usize, Rounding),
}

/// 8 bits of mantissa, to nearest, ties to even, as activations are stored.
fn to_bf16(v: f64) -> f64 {
    bf16::from_f32(v as f32).to_f64()
}

/// 11 bits of mantissa, to nearest, ties away from zero, as the matrix units' own conversion does.
pub fn to_tf32(v: f64) -> f64 {
    let bits = (v as f32).to_bits();
    f64::from(f32::from_bits(bits.wrapping_add(0x1000) & !0x1fff))
}

/// As many bits, the others cut off: the matrix units do so with what nobody has converted.
pub fn cut_to_tf32(v: f64) -> f64 {
    f64::from(f32::from_bits((v as f32).to_bits() & !0x1fff))
}

/// A number that an f32 sum in another order may give: off by up to two of an f32's roundings, by
/// more or less as the number's own bits say.
pub fn other_sum<const WAY: u64>(v: f64) -> f64 {
    let mixed = (v.to_bits() ^ WAY).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let share = (mixed >> 40) as f64 / f64::from(1 << 23) - 1.0;
    v * (1.0 + share * f64::from(f32::EPSILON))
}

/// How the factors of a contraction are rounded.
fn of_factors(precision: Precision, products: Rounding, instr: &Instr) -> Option<Rounding> {
    let Kernel::Contract { dims, .. } = &instr.kernel else { return None };
    match (precision, dims) {
        (Precision::F32, _) => None,
        (Precision::Tf32, Dims::Conv(_)) => Some(to_tf32),
        (Precision::Tf32, Dims::Gemm { .. }) => Some(products),
        (Precision::Bf16, Dims::Conv(_)) => Some(to_bf16),
        // Products of f32 matrices stay in f32.
        (Precision::Bf16, Dims::Gemm { .. }) => {
            let stored = instr.args.iter().chain(&instr.outs).any(|t| t.activation);
            stored.then_some(to_bf16 as Rounding)
        }
    }
}

impl Rounded {
    pub fn new(precision: Precision, threads: usize) -> Rounded {
        Rounded::with_products(precision, to_tf32, threads)
    }

    /// With another way in which factors of matrix products become tf32.
    pub fn with_products(precision: Precision, products: Rounding, threads: usize) -> Rounded {
        let (cpu, given, programs) = (Cpu::new(threads).unwrap(), Vec::new(), Vec::new());
        Rounded { precision, products, sums: None, cpu, states: 0, given, programs, pieces: 0 }
    }

    /// With the sums of a machine that computes them in f32.
    pub fn with_sums(precision: Precision, sums: Rounding, threads: usize) -> Rounded {
        Rounded { sums: Some(sums), ..Rounded::new(precision, threads) }
    }

    fn state(&mut self, kind: Kind, len: usize) -> Result<usize> {
        self.cpu.add_state(kind, len)?;
        self.states += 1;
        Ok(self.states - 1)
    }

    /// A program of one instruction, whose tensors' places are the CPU's states.
    fn piece(&mut self, instr: Instr) -> Result<Step> {
        let named = |_| Named { name: String::new(), shape: Shape::from([]), kind: Kind::Float };
        let plan = Plan {
            instrs: vec![instr],
            arena: 0,
            inputs: Vec::new(),
            states: (0..self.states).map(named).collect(),
            firsts: vec![None; self.states],
            outputs: Vec::new(),
            updated: Vec::new(),
        };
        self.cpu.load(plan, (0..self.states).collect())?;
        self.pieces += 1;
        Ok(Step::Run(self.pieces - 1))
    }
}

impl Backend for Rounded {
    fn describe(&self) -> String {
        format!("cpu, rounded as {}", self.precision.name())
    }

    fn precision(&self) -> &'static str {
        self.precision.name()
    }

    fn add_state(&mut self, kind: Kind, len: usize) -> Result<()> {
        let state = self.state(kind, len)?;
        self.given.push(state);
        Ok(())
    }

    fn write_state(&mut self, state: usize, values: Values) -> Result<()> {
        self.cpu.write_state(self.given[state], values)
    }

    fn read_state(&self, state: usize, out: &mut [f64]) -> Result<()> {
        self.cpu.read_state(self.given[state], out)
    }

    fn load(&mut self, plan: Plan, states: Vec<usize>) -> Result<()> {
        let states: Vec<usize> = states.into_iter().map(|s| self.given[s]).collect();
        let inputs = plan.inputs.iter().map(|i| self.state(i.kind, i.shape.count()));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let arena = self.state(Kind::Float, plan.arena)?;
        let home = |t: &Tensor| {
            let place = match t.place {
                Place::Arena(at) => Place::State(arena, at),
                Place::State(i, at) => Place::State(states[i], at),
                Place::Input(i, at) => Place::State(inputs[i], at),
            };
            Tensor { place, ..*t }
        };
        let mut steps = Vec::new();
        // Where a tensor is rounded: a copy that is used at once, so one a length and operand is
        // enough.
        let mut copies: HashMap<(usize, usize), usize> = HashMap::new();
        for instr in &plan.instrs {
            let mut args: Vec<Tensor> = instr.args.iter().map(home).collect();
            let outs: Vec<Tensor> = instr.outs.iter().map(home).collect();
            let copy = |kernel, from: Tensor, to: Tensor| Instr { kernel, args: vec![from], outs: vec![to] };
            let mut rounded = |this: &mut Rounded, i: usize, tensor: &Tensor| -> Result<(usize, Tensor)> {
                let state = match copies.get(&(i, tensor.len)) {
                    Some(state) => *state,
                    None => this.state(Kind::Float, tensor.len)?,
                };
                copies.insert((i, tensor.len), state);
                Ok((state, Tensor { place: Place::State(state, 0), ..*tensor }))
            };
            if let Some(round) = of_factors(self.precision, self.products, instr) {
                for (i, arg) in args.iter_mut().enumerate() {
                    let (state, place) = rounded(self, i, arg)?;
                    steps.push(self.piece(copy(Kernel::Copy, *arg, place))?);
                    steps.push(Step::Round(state, arg.len, round));
                    *arg = place;
                }
            }
            steps.push(self.piece(Instr { kernel: instr.kernel.clone(), args, outs: outs.clone() })?);
            let short = self.precision == Precision::Bf16;
            for out in outs.iter().filter(|out| out.kind == Kind::Float) {
                let stored = (short && out.activation).then_some(to_bf16 as Rounding);
                let all: Vec<Rounding> = self.sums.into_iter().chain(stored).collect();
                if all.is_empty() {
                    continue;
                }
                let (state, place) = rounded(self, 0, out)?;
                steps.push(self.piece(copy(Kernel::Copy, *out, place))?);
                steps.extend(all.into_iter().map(|round| Step::Round(state, out.len, round)));
                steps.push(self.piece(copy(Kernel::Copy, place, *out))?);
            }
        }
        self.programs.push(Loaded { steps, arena, states, inputs });
        Ok(())
    }

    fn write_input(&mut self, program: usize, input: usize, values: Values) -> Result<()> {
        self.cpu.write_state(self.programs[program].inputs[input], values)
    }

    fn run(&mut self, program: usize) -> Result<()> {
        let mut entries = Vec::new();
        for step in &self.programs[program].steps {
            match *step {
                Step::Run(piece) => self.cpu.run(piece)?,
                Step::Round(state, len, round) => {
                    entries.resize(len, 0.0);
                    self.cpu.read_state(state, &mut entries)?;
                    entries.iter_mut().for_each(|v| *v = round(*v));
                    self.cpu.write_state(state, Values::Float(&entries))?;
                }
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn profile(&mut self, _: usize) -> Result<Vec<(&'static str, f64)>> {
        unreachable!("nobody times the reference")
    }

    fn read(&self, program: usize, tensor: Tensor, out: &mut [f64]) -> Result<()> {
        let Loaded { arena, states, inputs, .. } = &self.programs[program];
        let (state, at) = match tensor.place {
            Place::Arena(at) => (*arena, at),
            Place::State(i, at) => (states[i], at),
            Place::Input(i, at) => (inputs[i], at),
        };
        let mut all = vec![0.0; at + tensor.len];
        self.cpu.read_state(state, &mut all)?;
        out.copy_from_slice(&all[at..]);
        Ok(())
    }

    fn float_bytes(&self) -> usize {
        8
    }
}
