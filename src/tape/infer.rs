//! Which argument shapes an operation takes, and which shape it gives. The produced shape is handed in where
//! the arguments do not determine it (a broadcast, a strided convolution's data gradient) and checked.

use super::op::{Form, Geometry, Kind, Op, Role, Strided, Window};
use super::shape::Shape;
use crate::error::{Error, Result};

/// Output extent of a window of `size` moving by `stride` over `extent`.
pub(crate) fn windows(extent: usize, size: usize, stride: usize) -> Option<usize> {
    (extent >= size && stride > 0 && size > 0).then(|| (extent - size) / stride + 1)
}

/// The shape in role C of a form with A and B of the given shapes.
pub(crate) fn product_shape(form: Form, a: &Shape, b: &Shape) -> Result<Shape> {
    let bad = |why: &str| Err(Error::shape(form_name(form), format!("{why}, got A {a} and B {b}")));
    match form {
        Form::Mul if a == b => Ok(a.clone()),
        Form::Mul => bad("both factors must have one shape"),
        Form::Gemm => match (&a[..], &b[..]) {
            (&[m, k], &[l, n]) if k == l => Ok([m, n].into()),
            _ => bad("A must be [m, k] and B [k, n]"),
        },
        Form::Conv(Geometry { stride, pad }) => match (&a[..], &b[..]) {
            (&[n, h, w, i], &[kh, kw, l, o]) if i == l => {
                match (windows(h + 2 * pad, kh, stride), windows(w + 2 * pad, kw, stride)) {
                    (Some(p), Some(q)) => Ok([n, p, q, o].into()),
                    _ => bad("the kernel must fit into the padded image, with a stride of at least 1"),
                }
            }
            _ => bad("A must be NHWC and B HWIO with the same input channels"),
        },
    }
}

/// Checks an operation's arguments and gives its result's shape and kind. `want` is the shape asked for.
pub(crate) fn infer(
    op: &Op,
    name: &str,
    args: &[(Kind, &Shape)],
    want: Option<&Shape>,
) -> Result<(Kind, Shape)> {
    let shapes: Vec<&Shape> = args.iter().map(|a| a.1).collect();
    let bad = |why: &str| {
        let list: Vec<String> = shapes.iter().map(|s| s.to_string()).collect();
        Error::shape(name, format!("{why}, got {}", list.join(" and ")))
    };
    let ints = match op {
        Op::CrossEntropy | Op::Residual | Op::WeightedResidual | Op::Correct | Op::Gather(_) => 1,
        _ => usize::MAX,
    };
    for (i, (kind, _)) in args.iter().enumerate() {
        let wanted = match op {
            Op::Gather(_) if i == 0 => Kind::Byte,
            _ if i == ints => Kind::Int,
            _ => Kind::Float,
        };
        if *kind != wanted {
            return Err(Error::shape(name, format!("argument {i} must be {wanted:?}, got {kind:?}")));
        }
    }
    let wanted = || want.cloned().ok_or_else(|| Error::shape(name, "the result's shape must be given"));
    let shape = match (op, &shapes[..]) {
        (Op::Input(_) | Op::State(_) | Op::Constant(_), []) => wanted()?,
        (Op::Add | Op::Mask, [a, b]) if a == b => (*a).clone(),
        (Op::Add | Op::Mask, _) => return Err(bad("both arguments must have one shape")),
        (Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Variable | Op::Detach, [a]) => (*a).clone(),
        (Op::Normalise(_), [a]) if !a.is_empty() => (*a).clone(),
        (Op::Softmax, [a]) if a.len() == 2 => (*a).clone(),
        (Op::Softmax, _) => return Err(bad("logits must be [n, k]")),
        (Op::Contract { form, out }, [a, b]) => contracted(*form, *out, a, b, want)?,
        (Op::Select(w), [v, x]) if v == x => {
            pooled(*w, x).ok_or_else(|| bad("a window must fit into NHWC"))?
        }
        (Op::Select(_), _) => return Err(bad("values and the tensor that selects must have one shape")),
        (Op::Unselect(w), [v, x]) if pooled(*w, x).as_ref() == Some(*v) => (*x).clone(),
        (Op::Unselect(_), _) => return Err(bad("values must be one per window")),
        (Op::Sum { from, to }, [a]) if from <= to && *to <= a.len() => a.without(*from..*to),
        (Op::Sum { from, to }, _) => return Err(bad(&format!("no axes {from}..{to}"))),
        (Op::Broadcast { from, to }, [a]) => {
            let full = wanted()?;
            if *to > full.len() || from > to || full.without(*from..*to) != **a {
                return Err(bad(&format!("{full} without axes {from}..{to} must be the argument's shape")));
            }
            full
        }
        (Op::Reshape, [a]) => {
            let to = wanted()?;
            if to.count() != a.count() {
                return Err(bad(&format!("{to} must hold as many numbers")));
            }
            to
        }
        (Op::Row(i), [a]) if a.first().is_some_and(|k| i < k) => a.without(0..1),
        (Op::Row(i), _) => return Err(bad(&format!("there is no row {i}"))),
        (Op::Unrow(i), [a]) => {
            let full = wanted()?;
            if full.first().is_none_or(|k| i >= k) || full.without(0..1) != **a {
                return Err(bad(&format!("the argument must be row {i} of {full}")));
            }
            full
        }
        (Op::Stack, [first, rest @ ..]) if rest.iter().all(|s| s == first) => first.with(0, &[shapes.len()]),
        (Op::Stack, _) => return Err(bad("one or more tensors of one shape")),
        (Op::Subsample(s), [a]) => subsampled(*s, a).ok_or_else(|| bad("the argument must be NHWC"))?,
        (Op::Embed(s), [a]) => {
            let full = wanted()?;
            if subsampled(*s, &full).as_ref() != Some(*a) {
                return Err(bad(&format!("the argument must be what Subsample gives of {full}")));
            }
            full
        }
        (Op::Moments, [a]) if !a.is_empty() => [2, a[a.len() - 1]].into(),
        (Op::Variance, [a]) if !a.is_empty() => [a[a.len() - 1]].into(),
        (Op::Moments | Op::Variance | Op::Normalise(_), _) => return Err(bad("at least one axis")),
        (Op::NormJacobian(_), [x, v]) if x == v && !x.is_empty() => (*x).clone(),
        (Op::NormJacobian(_), _) => {
            return Err(bad("both arguments must have one shape, of at least one axis"));
        }
        (Op::CrossEntropy | Op::Correct, [z, y]) if z.len() == 2 && y[..] == z[..1] => (*y).clone(),
        (Op::Residual, [z, y]) if z.len() == 2 && y[..] == z[..1] => (*z).clone(),
        (Op::WeightedResidual, [z, y, v]) if z.len() == 2 && y[..] == z[..1] && y == v => (*z).clone(),
        (Op::CrossEntropy | Op::Correct | Op::Residual | Op::WeightedResidual, _) => {
            return Err(bad("logits must be [n, k] and labels [n]"));
        }
        (Op::Gather(spec), [images, picks]) => match (&images[..], &picks[..]) {
            (&[_, h, w, c], &[n, 4]) if c == spec.mean.len() && c == spec.std.len() => {
                if spec.pad >= h.min(w).max(1) {
                    return Err(bad(&format!(
                        "a reflected border of {} must be narrower than the image",
                        spec.pad
                    )));
                }
                [n, h, w, c].into()
            }
            _ => return Err(bad("pixels must be [N,h,w,c] with a mean and std per channel, picks [n, 4]")),
        },
        (_, _) => return Err(bad("wrong number of arguments")),
    };
    if want.is_some_and(|w| *w != shape) {
        return Err(bad(&format!(
            "the result has shape {shape}, not the {} asked for",
            want.unwrap_or(&shape)
        )));
    }
    Ok((Kind::Float, shape))
}

fn contracted(form: Form, out: Role, a: &Shape, b: &Shape, want: Option<&Shape>) -> Result<Shape> {
    if out == Role::C {
        return product_shape(form, a, b);
    }
    // Roles A and B: find or check the shape whose product with the given factor is C.
    let produced = match (form, want) {
        (_, Some(want)) => want.clone(),
        (Form::Mul, None) => a.clone(),
        (Form::Gemm, None) if a.len() == 2 && b.len() == 2 => match out {
            Role::A => [b[0], a[0]].into(), // (B [k,n], C [m,n]) gives A [m,k]
            _ => [a[1], b[1]].into(),       // (A [m,k], C [m,n]) gives B [k,n]
        },
        _ => return Err(Error::shape(form_name(form), "the produced factor's shape must be given")),
    };
    let product =
        if out == Role::A { product_shape(form, &produced, a)? } else { product_shape(form, a, &produced)? };
    if product != *b {
        let detail = format!("factors {produced} and {a} multiply to {product}, but C is {b}");
        return Err(Error::shape(form_name(form), detail));
    }
    Ok(produced)
}

fn pooled(w: Window, x: &Shape) -> Option<Shape> {
    match x[..] {
        [n, h, wd, c] => Some([n, windows(h, w.size, w.stride)?, windows(wd, w.size, w.stride)?, c].into()),
        _ => None,
    }
}

fn subsampled(s: Strided, x: &Shape) -> Option<Shape> {
    match x[..] {
        [n, h, w, c] if s.stride > 0 => {
            Some([n, h.div_ceil(s.stride), w.div_ceil(s.stride), s.before + c + s.after].into())
        }
        _ => None,
    }
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Mul => "mul",
        Form::Gemm => "gemm",
        Form::Conv(_) => "conv",
    }
}
