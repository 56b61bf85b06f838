//! The only derivative table: per operation and argument, the Jacobian block.

use super::linear_map::{Block, LinearMap};
use super::op::{Op, Scalar, Unary};
use super::record::{Node, Tape, Var};
use crate::error::{Error, Result};

impl Tape {
    /// The Jacobian block of `var` in its argument number `arg`. Values that the block holds fixed
    /// are recorded on this tape as functions of the primal values, so blocks can be differentiated
    /// again.
    ///
    /// # Errors
    /// [`Error::MissingRule`] where there is no rule; never a silent zero. If `var` is of another
    /// tape.
    pub fn jacobian_block(&mut self, var: Var, arg: usize) -> Result<LinearMap> {
        let Node { op, args, shape: to, .. } = self.own(var, || "jacobian block".into())?.clone();
        let missing = |hint: &str| Error::MissingRule { op: op.name(), arg, hint: hint.to_owned() };
        let Some(x) = args.get(arg).copied().filter(|_| !op.steers(arg)) else {
            return Err(missing("the result is locally constant in it, or there is no such argument"));
        };
        let from = self.shape(x).clone();
        let rows = from.len().saturating_sub(1);
        let per_row = 1.0 / from[..rows].iter().product::<usize>().max(1) as f64;
        let block = match &op {
            Op::Input(_) | Op::State(_) | Op::Constant(_) => return Err(missing("a leaf has no arguments")),
            Op::Add | Op::Offset(_) | Op::Reshape | Op::Variable => Block::Identity,
            Op::Scale(c) => Block::Scale(c.0),
            Op::Unary(f) => {
                let slope = self.slope(*f, x, var)?;
                return Ok(LinearMap::times(self, slope));
            }
            Op::Contract { form, out } => {
                let roles = out.others();
                Block::Contract { form: *form, free: roles[arg], out: *out, fixed: args[1 - arg] }
            }
            // relu(x) > 0 exactly where x > 0: the output steers as well as the input, which need
            // not be kept.
            Op::Mask if args[0] == args[1] => Block::Mask(var),
            Op::Mask => Block::Mask(args[1]),
            Op::Max => return self.max_jacobian(arg, args[0], args[1]),
            Op::Select(w) => Block::Select(*w, args[1]),
            Op::Unselect(w) => Block::Unselect(*w, args[1]),
            Op::Sum { from, to } => Block::Sum(*from, *to),
            Op::Broadcast { from, to } => Block::Broadcast(*from, *to),
            Op::Row(i) => Block::Row(*i),
            Op::Unrow(i) => Block::Unrow(*i),
            Op::Stack => Block::Unrow(arg),
            Op::Subsample(s) => Block::Subsample(*s),
            Op::Embed(s) => Block::Embed(*s),
            Op::Normalise(eps) => Block::NormJacobian(*eps, x),
            Op::NormJacobian(eps) if arg == 1 => Block::NormJacobian(*eps, args[0]),
            Op::NormJacobian(_) => return self.norm_jacobian_in_x(var),
            // d var = (2/N) Σ (x − mean) dx
            Op::Variance => {
                let mean = self.mean(x, 0, rows)?;
                let mean = self.broadcast_to(mean, from.clone())?;
                let centred = self.sub(x, mean)?;
                return Ok(LinearMap::chain(vec![
                    LinearMap::times(self, centred),
                    LinearMap { block: Block::Sum(0, rows), from, to: to.clone() },
                    LinearMap::same(Block::Scale(2.0 * per_row), &to),
                ]));
            }
            Op::Moments => {
                return Err(missing("it serves running statistics; use `normalise` and `variance`"));
            }
            Op::Softmax => return self.softmax_jacobian(var),
            // The residual is softmax minus a constant.
            Op::Residual => {
                let p = self.softmax(x)?;
                return self.softmax_jacobian(p);
            }
            // dℓ = Σ_k (softmax − one-hot)_k dz_k
            Op::CrossEntropy => {
                let residual = self.push(Op::Residual, &args, None)?;
                let sum = LinearMap { block: Block::Sum(1, 2), from, to };
                return Ok(LinearMap::chain(vec![LinearMap::times(self, residual), sum]));
            }
            Op::WeightedResidual => return Err(missing("it is a fused form; differentiate before fusion")),
            Op::Detach | Op::Correct | Op::Gather(_) => return Err(missing("it is constant by definition")),
        };
        Ok(LinearMap { block, from, to })
    }

    /// f′(x), given `y = f(x)`.
    fn slope(&mut self, f: Unary, x: Var, y: Var) -> Result<Var> {
        match f {
            Unary::Sigmoid => {
                let square = self.mul(y, y)?;
                self.sub(y, square)
            }
            Unary::Recip => {
                let square = self.mul(y, y)?;
                self.scale(square, -1.0)
            }
            Unary::Sqrt => {
                let inverse = self.unary(Unary::Recip, y)?;
                self.scale(inverse, 0.5)
            }
            Unary::Exp => Ok(y),
            Unary::Log => self.unary(Unary::Recip, x),
            Unary::Tanh => {
                let square = self.mul(y, y)?;
                let minus = self.scale(square, -1.0)?;
                self.offset(minus, 1.0)
            }
            Unary::Softplus => self.sigmoid(x),
            Unary::Erf => {
                let square = self.mul(x, x)?;
                let minus = self.scale(square, -1.0)?;
                let bell = self.unary(Unary::Exp, minus)?;
                self.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)
            }
            Unary::Pow(Scalar(0.0)) => Ok(self.constant(0.0, self.shape(x).clone())),
            Unary::Pow(c) => {
                let power = self.powf(x, c.0 - 1.0)?;
                self.scale(power, c.0)
            }
        }
    }

    /// `v ↦ v` where the argument is the larger one, else 0; where both are equal, the first one
    /// counts.
    fn max_jacobian(&mut self, arg: usize, a: Var, b: Var) -> Result<LinearMap> {
        let excess = self.sub(b, a)?;
        let shape = self.shape(a).clone();
        let second = LinearMap::same(Block::Mask(excess), &shape);
        if arg == 1 {
            return Ok(second);
        }
        let minus = LinearMap::same(Block::Scale(-1.0), &shape);
        let both = LinearMap::same(Block::Identity, &shape);
        Ok(LinearMap::same(Block::Plus(vec![both, LinearMap::chain(vec![second, minus])]), &shape))
    }

    /// `dz ↦ p∘dz − p·⟨p, dz⟩` per row, for `p = softmax(z)`; self-adjoint.
    fn softmax_jacobian(&mut self, p: Var) -> Result<LinearMap> {
        let shape = self.shape(p).clone();
        let rows = shape.without(1..2);
        let times = LinearMap::times(self, p);
        let spread = LinearMap::chain(vec![
            times.clone(),
            LinearMap { block: Block::Sum(1, 2), from: shape.clone(), to: rows.clone() },
            LinearMap { block: Block::Broadcast(1, 2), from: rows, to: shape.clone() },
            times.clone(),
            LinearMap::same(Block::Scale(-1.0), &shape),
        ]);
        Ok(LinearMap::same(Block::Plus(vec![times, spread]), &shape))
    }

    /// The block of `y = r·(v − mean v − x̂·m)`, `m = mean(x̂ v)`, in x. With `dx̂ = J dx` (J:
    /// batch norm's Jacobian at x) and `dr = −r²·mean(x̂ dx)`:
    /// `dy = −r·y·mean(x̂ dx) − r·(m·dx̂ + x̂·mean(v dx̂))`.
    fn norm_jacobian_in_x(&mut self, var: Var) -> Result<LinearMap> {
        let Node { op, args, shape, .. } = self.node(var).clone();
        let (Op::NormJacobian(eps), [x, v]) = (op, &args[..]) else {
            unreachable!("called for batch norm's Jacobian only")
        };
        let rows = shape.len() - 1;
        let channels = shape.without(0..rows);
        let count = shape.count() as f64 / channels.count().max(1) as f64;
        let xhat = self.normalise(*x, eps.0)?;
        let variance = self.push(Op::Variance, &[*x], None)?;
        let r = self.inverse_deviation(variance, eps.0)?;
        let r = self.broadcast_to(r, shape.clone())?;
        let xv = self.mul(xhat, *v)?;
        let m = self.mean(xv, 0, rows)?;
        let m = self.broadcast_to(m, shape.clone())?;
        let (rm, ry, rx) = (self.mul(r, m)?, self.mul(r, var)?, self.mul(r, xhat)?);
        // `u ↦ −factor · mean(along u)`
        let mean_times = |tape: &Tape, along: Var, factor: Var| {
            vec![
                LinearMap::times(tape, along),
                LinearMap { block: Block::Sum(0, rows), from: shape.clone(), to: channels.clone() },
                LinearMap::same(Block::Scale(-1.0 / count), &channels),
                LinearMap { block: Block::Broadcast(0, rows), from: channels.clone(), to: shape.clone() },
                LinearMap::times(tape, factor),
            ]
        };
        let jacobian = LinearMap::same(Block::NormJacobian(eps, *x), &shape);
        let mut through_xhat = vec![jacobian.clone()];
        through_xhat.extend(mean_times(self, *v, rx));
        Ok(LinearMap::same(
            Block::Plus(vec![
                LinearMap::chain(mean_times(self, xhat, ry)),
                LinearMap::chain(vec![
                    jacobian,
                    LinearMap::times(self, rm),
                    LinearMap::same(Block::Scale(-1.0), &shape),
                ]),
                LinearMap::chain(through_xhat),
            ]),
            &shape,
        ))
    }
}
