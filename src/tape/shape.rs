use std::fmt;
use std::ops::{Deref, Range};

use crate::error::{Error, Result};

/// The extents of a tensor, outermost first; a scalar has none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape of a single number.
    pub fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// How many numbers a tensor of this shape holds.
    pub fn count(&self) -> usize {
        self.0.iter().product()
    }

    /// The shape, of what `name` is, unless it has more numbers than any memory.
    pub(super) fn checked(self, name: &str) -> Result<Shape> {
        let bytes = self.0.iter().try_fold(8, |all: usize, extent| all.checked_mul(*extent));
        let fits = bytes.is_some_and(|bytes| bytes <= isize::MAX as usize);
        if fits { Ok(self) } else { Err(Error::shape(name, format!("{self} is more than any memory holds"))) }
    }

    /// The shape without the axes in `range`.
    pub fn without(&self, range: Range<usize>) -> Shape {
        let mut dims = self.0.clone();
        dims.drain(range);
        Shape(dims)
    }

    /// The shape with `dims` put in before axis `at`.
    pub fn with(&self, at: usize, dims: &[usize]) -> Shape {
        let mut all = self.0.clone();
        all.splice(at..at, dims.iter().copied());
        Shape(all)
    }

    /// This shape seen as `[pre, mid, post]`, where `mid` are the axes in `range`.
    pub fn view3(&self, range: Range<usize>) -> View3 {
        View3 {
            pre: self.0[..range.start].iter().product(),
            mid: self.0[range.clone()].iter().product(),
            post: self.0[range.end..].iter().product(),
        }
    }
}

/// A tensor seen as three axes: a sum runs over `mid`, a broadcast repeats along it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct View3 {
    /// Product of the axes before.
    pub pre: usize,
    /// Product of the axes that are summed away or put in.
    pub mid: usize,
    /// Product of the axes after.
    pub post: usize,
}

impl View3 {
    /// Numbers in the long tensor.
    pub fn count(&self) -> usize {
        self.pre * self.mid * self.post
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(dims)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape(dims.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
