//! Matrix products, by the library; factors of two widths are brought to one before.

use super::super::Precision;
use super::super::builder::{Builder, tensor_width};
use super::super::driver::{Address, Command, Gemm, Width};
use super::structure::cast;
use crate::error::Result;
use crate::program::{Dims, Instr, Kernel, Tensor};
use crate::tape::Role;

/// What is cast begins at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// The width that both factors must have: bf16 if any of the three matrices is stored so, since the
/// library has no product in bf16 of factors in f32.
fn factor_width(precision: Precision, instr: &Instr) -> Width {
    let mut all = instr.args[..2].iter().chain(&instr.outs);
    match all.any(|t| tensor_width(precision, t) == Width::Bf16) {
        true => Width::Bf16,
        false => Width::F32,
    }
}

/// Bytes of the factors that are cast.
pub fn workspace_bytes(precision: Precision, instr: &Instr) -> usize {
    let width = factor_width(precision, instr);
    let room = |t: &Tensor| match tensor_width(precision, t) == width {
        true => 0,
        false => (t.len * width.bytes()).next_multiple_of(ALIGNMENT),
    };
    instr.args[..2].iter().map(room).sum()
}

/// Appends the commands of a matrix product in one of its roles.
///
/// # Errors
/// If a factor that must be cast has more entries than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr) -> Result<()> {
    let Kernel::Contract { out, dims: Dims::Gemm { m, n, k }, accumulate, .. } = instr.kernel else {
        unreachable!("{} is no matrix product", instr.kernel.name())
    };
    let to = &instr.outs[0];
    let (c, product) = (b.address(to), b.width(to));
    // Rows and columns of the product, what is summed over, which of the arguments comes first, and
    // which factor lies transposed.
    let (rows, columns, depth, [first, second], a_transposed, b_transposed) = match out {
        Role::C => (m, n, k, [0, 1], false, false),
        // (B [k,n], C [m,n]): A = C·Bᵀ
        Role::A => (m, k, n, [1, 0], false, true),
        // (A [m,k], C [m,n]): B = Aᵀ·C
        Role::B => (k, n, m, [0, 1], true, false),
    };
    if to.len == 0 {
        return Ok(());
    }
    if depth == 0 {
        if !accumulate {
            b.commands.push(Command::Clear { to: c, bytes: to.len * product.bytes() });
        }
        return Ok(());
    }
    let factors = factor_width(b.precision, instr);
    let mut free = b.workspace;
    let mut factor = |argument: &Tensor| -> Result<Address> {
        let (at, width) = (b.address(argument), b.width(argument));
        if width == factors {
            return Ok(at);
        }
        let place = free;
        free += (argument.len * factors.bytes()).next_multiple_of(ALIGNMENT) as Address;
        cast(b, at, width, place, factors, argument.len)?;
        Ok(place)
    };
    let (a, second) = (factor(&instr.args[first])?, factor(&instr.args[second])?);
    b.commands.push(Command::Gemm(Gemm {
        a,
        b: second,
        c,
        m: rows,
        n: columns,
        k: depth,
        a_transposed,
        b_transposed,
        accumulate,
        factors,
        product,
        tf32: b.precision == Precision::Tf32,
    }));
    Ok(())
}
