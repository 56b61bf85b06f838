//! One instruction: its operands' slices, and the kernel that takes them.

use super::conv;
use super::memory::{Buffer, Loaded};
use super::pool::{self, PoolShape};
use super::real::Real;
use super::structure::{self, GatherShape, SubsampleShape};
use super::{gemm, norm, reduce, xent};
use crate::program::{Dims, Kernel, Place, Tensor};
use crate::tape::{Role, Strided, Window};

/// Entries of workspace that a kernel asks for (groups ask for theirs themselves).
pub(super) fn workspace_len<T: Real>(kernel: &Kernel, args: &[Tensor]) -> usize {
    match kernel {
        Kernel::Contract { dims, out, .. } => match *dims {
            Dims::Conv(shape) => conv::workspace_len::<T>(&shape, *out),
            Dims::Gemm { .. } => 0,
        },
        Kernel::Sum(view) => reduce::workspace_len(view.pre, view.mid, view.post),
        Kernel::Moments(c) => norm::workspace_len(args[0].len / (*c).max(1), *c),
        Kernel::Group(_) | Kernel::Select(..) | Kernel::Unselect(..) => 0,
        Kernel::Subsample(..) | Kernel::Embed(..) | Kernel::Unrow(_) | Kernel::Stack => 0,
        Kernel::Softmax(_) | Kernel::CrossEntropy | Kernel::Residual | Kernel::WeightedResidual => 0,
        Kernel::Correct | Kernel::Gather(..) | Kernel::Copy => 0,
    }
}

/// Rows, columns and summed extent of the product that gives `out`, of a form with A `[m,k]`, B
/// `[k,n]`.
fn product_extents(out: Role, m: usize, n: usize, k: usize) -> [usize; 3] {
    match out {
        Role::C => [m, n, k],
        Role::A => [m, k, n],
        Role::B => [k, n, m],
    }
}

/// The memory of a program while it runs. Tensors are handed out as slices by place; the plan
/// vouches that an instruction's outputs overlap nothing else of it, but for groups that work in
/// place, which take pointers.
struct Memory<'a, T> {
    arena: *mut T,
    states: &'a mut [Buffer<T>],
    state_numbers: &'a [usize],
    inputs: &'a mut [Buffer<T>],
}

impl<T: Real> Memory<'_, T> {
    fn pointer(&mut self, tensor: &Tensor) -> *mut T {
        let buffer = match tensor.place {
            // SAFETY: the plan's arena holds every tensor that is placed in it.
            Place::Arena(at) => return unsafe { self.arena.add(at) },
            Place::State(i, at) => (&mut self.states[self.state_numbers[i]], at),
            Place::Input(i, at) => (&mut self.inputs[i], at),
        };
        match buffer {
            (Buffer::Float(v), at) => v[at..at + tensor.len].as_mut_ptr(),
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn read<'s>(&mut self, tensor: &Tensor) -> &'s [T] {
        let pointer = self.pointer(tensor);
        // SAFETY: `pointer` is good for `len` entries while the program runs; the plan lets nothing
        // write to them in the same instruction.
        unsafe { std::slice::from_raw_parts(pointer, tensor.len) }
    }

    fn write<'s>(&mut self, tensor: &Tensor) -> &'s mut [T] {
        let pointer = self.pointer(tensor);
        // SAFETY: as for `read`; an instruction's outputs overlap nothing else that it takes.
        unsafe { std::slice::from_raw_parts_mut(pointer, tensor.len) }
    }

    fn ints(&self, tensor: &Tensor) -> &[i32] {
        match self.buffer(tensor) {
            (Buffer::Int(v), at) => &v[at..at + tensor.len],
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn bytes(&self, tensor: &Tensor) -> &[u8] {
        match self.buffer(tensor) {
            (Buffer::Byte(v), at) => &v[at..at + tensor.len],
            _ => unreachable!("shape inference gives every operand its kind"),
        }
    }

    fn buffer(&self, tensor: &Tensor) -> (&Buffer<T>, usize) {
        match tensor.place {
            Place::State(i, at) => (&self.states[self.state_numbers[i]], at),
            Place::Input(i, at) => (&self.inputs[i], at),
            Place::Arena(_) => unreachable!("arenas hold floating-point tensors only"),
        }
    }
}

/// Most operands that a group takes or gives (`fuse.rs` stays below).
const MAX_OPERANDS: usize = 128;

/// A number type whose programs can be run.
///
/// `Cpu<T>` is compiled by whoever names its T. The kernels are not: this is, once a type, where it
/// is implemented. Otherwise every user of the library would compile all of them again.
pub trait Run: Sized {
    /// Runs all instructions in order; `after` is called with the number of each that is done.
    fn run(program: &mut Loaded<Self>, states: &mut [Buffer<Self>], after: &mut (dyn FnMut(usize) + Send));
}

macro_rules! run {
    ($($t:ty),+) => {$(
        impl Run for $t {
            #[inline(never)]
            fn run(program: &mut Loaded<$t>, states: &mut [Buffer<$t>], after: &mut (dyn FnMut(usize) + Send)) {
                run(program, states, after);
            }
        }
    )+};
}
run!(f32, f64);

fn run<T: Real>(program: &mut Loaded<T>, states: &mut [Buffer<T>], after: &mut (dyn FnMut(usize) + Send)) {
    let Loaded { plan, states: state_numbers, inputs, arena, start, groups, workspace, scratch } = program;
    let arena = arena[*start..].as_mut_ptr();
    let mut memory = Memory { arena, states, state_numbers, inputs };
    for (i, (instr, group)) in plan.instrs.iter().zip(groups).enumerate() {
        let (args, outs) = (&instr.args, &instr.outs);
        if let Some(group) = group {
            let mut from = [std::ptr::null(); MAX_OPERANDS];
            let mut to = [std::ptr::null_mut(); MAX_OPERANDS];
            for (pointer, arg) in from.iter_mut().zip(args) {
                *pointer = memory.pointer(arg).cast_const();
            }
            for (pointer, out) in to.iter_mut().zip(outs) {
                *pointer = memory.pointer(out);
            }
            let (from, to) = (&from[..args.len()], &to[..outs.len()]);
            // SAFETY: the plan gives every operand its length and lets outputs overlap arguments
            // only where the group was told so; scratch and workspace have the lengths that the
            // group asked for.
            unsafe { group.run(from, to, scratch.as_mut_ptr(), workspace.as_mut_ptr()) };
        } else {
            kernel(&instr.kernel, args, outs, &mut memory, workspace);
        }
        after(i);
    }
}

fn kernel<T: Real>(
    kernel: &Kernel,
    args: &[Tensor],
    outs: &[Tensor],
    memory: &mut Memory<T>,
    workspace: &mut [T],
) {
    let arg = |memory: &mut Memory<T>, i: usize| memory.read(&args[i]);
    let out = memory.write(&outs[0]);
    match kernel {
        Kernel::Contract { out: role, dims, accumulate, .. } => {
            let (a, b) = (arg(memory, 0), arg(memory, 1));
            match *dims {
                Dims::Conv(shape) => match role {
                    Role::C => {
                        conv::forward(&shape, a, b, out, *accumulate, workspace);
                        if args.len() > 2 {
                            conv::forward(&shape, arg(memory, 2), arg(memory, 3), out, true, workspace);
                        }
                    }
                    Role::A => conv::data_gradient(&shape, a, b, out, *accumulate, workspace),
                    Role::B => conv::weight_gradient(&shape, a, b, out, *accumulate, workspace),
                },
                Dims::Gemm { m, n, k } => {
                    let [m, n, k] = product_extents(*role, m, n, k);
                    let (ta, tb, a, b) = match role {
                        Role::C => (false, false, a, b),
                        // (B [k,n], C [m,n]): A = C·Bᵀ
                        Role::A => (false, true, b, a),
                        // (A [m,k], C [m,n]): B = Aᵀ·C
                        Role::B => (true, false, a, b),
                    };
                    gemm::gemm(ta, tb, m, n, k, a, b, out, *accumulate);
                }
            }
        }
        Kernel::Group(_) => unreachable!("groups are prepared and run apart"),
        Kernel::Sum(view) => reduce::sum(view.pre, view.mid, view.post, arg(memory, 0), out, workspace),
        Kernel::Select(window, shape) => {
            let v = arg(memory, 0);
            let x = if args.len() > 1 { arg(memory, 1) } else { v };
            pool::select(&pool_shape(*window, *shape), v, x, out);
        }
        Kernel::Unselect(window, shape) => {
            let (ct, x) = (arg(memory, 0), arg(memory, 1));
            pool::unselect(&pool_shape(*window, *shape), ct, x, out);
        }
        Kernel::Subsample(how, shape) => {
            structure::subsample(&subsample_shape(*how, *shape), arg(memory, 0), out);
        }
        Kernel::Embed(how, shape) => structure::embed(&subsample_shape(*how, *shape), arg(memory, 0), out),
        Kernel::Unrow(at) => {
            out.fill(T::ZERO);
            let row = arg(memory, 0);
            out[*at..at + row.len()].copy_from_slice(row);
        }
        Kernel::Stack => {
            for (i, row) in out.chunks_exact_mut(args[0].len.max(1)).enumerate() {
                row.copy_from_slice(arg(memory, i));
            }
        }
        Kernel::Moments(_) => norm::moments(arg(memory, 0), out, workspace),
        Kernel::Softmax(k) => xent::softmax(args[0].len / k, arg(memory, 0), out),
        Kernel::CrossEntropy => xent::cross_entropy(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::Residual => xent::residual(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::WeightedResidual => {
            let weights = arg(memory, 2);
            xent::weighted_residual(arg(memory, 0), memory.ints(&args[1]), weights, out);
        }
        Kernel::Correct => xent::correct(arg(memory, 0), memory.ints(&args[1]), out),
        Kernel::Gather(spec, [h, w, c]) => {
            let shape = GatherShape { h: *h, w: *w, c: *c, pad: spec.pad };
            let picks: &[[i32; 4]] = bytemuck::cast_slice(memory.ints(&args[1]));
            structure::gather(&shape, memory.bytes(&args[0]), picks, &spec.mean, &spec.std, out);
        }
        Kernel::Copy => out.copy_from_slice(arg(memory, 0)),
    }
}

fn pool_shape(window: Window, [n, h, w, c]: [usize; 4]) -> PoolShape {
    PoolShape { n, h, w, c, k: window.size, stride: window.stride }
}

fn subsample_shape(how: Strided, [n, h, w, c]: [usize; 4]) -> SubsampleShape {
    SubsampleShape { n, h, w, c, stride: how.stride, before: how.before, after: how.after }
}
