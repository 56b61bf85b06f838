//! The shapes that trilinear forms, windows and strides give.

use super::op::{Form, Geometry, Role, Strided, Window};
use super::shape::Shape;
use crate::error::{Error, Result};

/// Output extent of a window of `size` moving by `stride` over `extent`, if it fits at all.
pub(crate) fn windows(extent: usize, size: usize, stride: usize) -> Option<usize> {
    (extent >= size && stride > 0 && size > 0).then(|| (extent - size) / stride + 1)
}

/// The shape in role C of a form with A and B of the given shapes.
fn product_shape(form: Form, a: &Shape, b: &Shape) -> Result<Shape> {
    let bad = |why: &str| Err(Error::shape(form.name(), format!("{why}, got A {a} and B {b}")));
    match form {
        Form::Mul if a == b => Ok(a.clone()),
        Form::Mul => bad("both factors must have one shape"),
        Form::Gemm => match (&a[..], &b[..]) {
            (&[m, k], &[l, n]) if k == l => Ok([m, n].into()),
            _ => bad("A must be [m, k] and B [k, n]"),
        },
        Form::Conv(Geometry { stride, pad, groups }) => match (&a[..], &b[..]) {
            (&[_, _, _, i], &[_, _, _, o])
                if groups == 0 || ![i, o].iter().all(|c| c.is_multiple_of(groups)) =>
            {
                bad(&format!("{groups} groups must divide A's {i} channels and B's {o} outputs"))
            }
            (&[n, h, w, i], &[kh, kw, l, o]) if i == l * groups => {
                let over = |e: usize, k| windows(pad.checked_mul(2)?.checked_add(e)?, k, stride);
                match (over(h, kh), over(w, kw)) {
                    (Some(p), Some(q)) => Ok([n, p, q, o].into()),
                    _ => bad("the kernel must fit into the padded image, with a stride of at least 1"),
                }
            }
            _ if groups == 1 => bad("A must be NHWC and B HWIO with the same input channels"),
            _ => bad(&format!("A must be NHWC and B HWIO with a channel in for each {groups} of A's")),
        },
    }
}

/// The shape of the tensor in role `out` of a form, from the two others in order of their roles.
pub(super) fn contracted(form: Form, out: Role, a: &Shape, b: &Shape, want: Option<&Shape>) -> Result<Shape> {
    if out == Role::C {
        return product_shape(form, a, b);
    }
    // Roles A and B: find or check the shape whose product with the given factor is C.
    let produced = match (form, want) {
        (_, Some(want)) => want.clone(),
        (Form::Mul, None) => a.clone(),
        (Form::Gemm, None) if a.len() == 2 && b.len() == 2 => {
            // (B [k,n], C [m,n]) gives A [m,k]; (A [m,k], C [m,n]) gives B [k,n]
            if out == Role::A { [b[0], a[0]].into() } else { [a[1], b[1]].into() }
        }
        (Form::Gemm | Form::Conv(_), None) => {
            return Err(Error::shape(form.name(), "the produced factor's shape must be given"));
        }
    };
    let product =
        if out == Role::A { product_shape(form, &produced, a)? } else { product_shape(form, a, &produced)? };
    if product != *b {
        let detail = format!("factors {produced} and {a} multiply to {product}, but C is {b}");
        return Err(Error::shape(form.name(), detail));
    }
    Ok(produced)
}

/// What a window makes of NHWC.
pub(super) fn pooled(w: Window, x: &Shape) -> Option<Shape> {
    let &[n, h, wd, c] = &x[..] else { return None };
    Some([n, windows(h, w.size, w.stride)?, windows(wd, w.size, w.stride)?, c].into())
}

/// See [`Strided`].
pub(super) fn subsampled(s: Strided, x: &Shape) -> Option<Shape> {
    let &[n, h, w, c] = &x[..] else { return None };
    let extent = |e: usize| (s.stride > 0).then(|| e.div_ceil(s.stride));
    Some([n, extent(h)?, extent(w)?, s.before.checked_add(c)?.checked_add(s.after)?].into())
}
