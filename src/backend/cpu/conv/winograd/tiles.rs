//! Tiles of images: read and transformed into scratch, and back.

use std::ops::Range;

use super::points::{self, across};
use super::side;
use crate::backend::cpu::conv::{BLOCK, ConvShape};
use crate::backend::cpu::isa::{Kernel, Simd, prefetch};
use crate::backend::cpu::real::Real;
use crate::tape::Role;

/// Tiles of `side` × `side` output pixels that cover all images, row by row. The window under a
/// tile has `points` × `points` of them and begins `pad` above and left of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Height and width of what windows lie on.
    pub h: usize,
    pub w: usize,
    /// Height and width of what tiles lie on.
    pub oh: usize,
    pub ow: usize,
    pub pad: usize,
    pub side: usize,
    pub points: usize,
}

impl Grid {
    /// Windows on x under tiles on y: what the forward pass (`role` C) and the weight gradient (B)
    /// read.
    pub fn forward(s: &ConvShape, role: Role) -> Grid {
        let side = side(s.kh, role);
        Grid { h: s.h, w: s.w, oh: s.oh(), ow: s.ow(), pad: s.pad, side, points: side + s.kh - 1 }
    }
    /// Windows on y under tiles on x. `s.pad` is less than the taps.
    pub fn backward(s: &ConvShape) -> Grid {
        let (side, pad) = (side(s.kh, Role::A), s.kh - 1 - s.pad);
        Grid { h: s.oh(), w: s.ow(), oh: s.h, ow: s.w, pad, side, points: side + s.kh - 1 }
    }
    /// Of a filter's row.
    pub fn taps(&self) -> usize {
        self.points + 1 - self.side
    }
    /// Of a tile.
    pub fn products(&self) -> usize {
        self.points * self.points
    }
    /// Tiles side by side, and rows of them, on an image.
    pub fn across(&self) -> usize {
        self.ow.div_ceil(self.side)
    }
    pub fn down(&self) -> usize {
        self.oh.div_ceil(self.side)
    }
    /// Tiles of an image.
    pub fn tiles(&self) -> usize {
        self.down() * self.across()
    }
    /// Image, row and column of tile `t`.
    #[inline(always)]
    fn place(&self, t: usize) -> (usize, usize, usize) {
        let (image, t) = (t / self.tiles(), t % self.tiles());
        (image, t / self.across() * self.side, t % self.across() * self.side)
    }
    /// Pixels from the first row that tiles lie on to the last one; of their windows' rows if
    /// WINDOWS.
    #[inline(always)]
    pub fn span<const WINDOWS: bool>(&self, tiles: Range<usize>) -> Range<usize> {
        let ((image, row, _), (last_image, last_row, _)) =
            (self.place(tiles.start), self.place(tiles.end - 1));
        if WINDOWS {
            let last = (last_row + self.points).saturating_sub(self.pad).min(self.h);
            (image * self.h + row.saturating_sub(self.pad).min(self.h)) * self.w
                ..(last_image * self.h + last) * self.w
        } else {
            let last = (last_row + self.side).min(self.oh);
            (image * self.oh + row) * self.ow..(last_image * self.oh + last) * self.ow
        }
    }
}

/// Lines of memory that are soon needed, fetched a few at a time between products, while the
/// memory would do nothing otherwise: transforms alone would wait for it.
pub(super) struct Ahead<T> {
    at: *const T,
    /// Numbers to go, and how many of them at a time.
    left: usize,
    step: usize,
}

impl<T> Ahead<T> {
    /// Of pixels `pixel` numbers apart under `tiles`, or under their windows, in `times` steps.
    #[inline(always)]
    pub fn new<const WINDOWS: bool>(
        grid: &Grid,
        tiles: Range<usize>,
        from: *const T,
        pixel: usize,
        times: usize,
    ) -> Self {
        if tiles.is_empty() {
            return Ahead { at: from, left: 0, step: 0 };
        }
        let span = grid.span::<WINDOWS>(tiles);
        let left = span.len() * pixel;
        Ahead { at: from.wrapping_add(span.start * pixel), left, step: left.div_ceil(times) }
    }

    #[inline(always)]
    pub fn fetch<const WRITE: bool>(&mut self) {
        let step = self.step.min(self.left);
        for i in (0..step).step_by(64 / size_of::<T>()) {
            prefetch::<T, WRITE>(self.at.wrapping_add(i));
        }
        self.at = self.at.wrapping_add(step);
        self.left -= step;
    }
}

/// Where transformed tiles lie: for each of the P² products, a row of channels for each tile.
#[derive(Clone, Copy)]
pub(super) struct Scratch<T> {
    pub at: *mut T,
    /// Numbers from a tile to the next one, and from a product to the next one.
    pub tile: usize,
    pub product: usize,
}

/// Writes the transforms of some channels of tiles to scratch: A y Aᵀ of the pixels of a tile; or,
/// if READ is P, Bᵀ d B of those of its window.
///
/// # Safety
/// `from` is the first of `channels` (whole vectors) of the images' first pixel; pixels are `pixel`
/// apart; the tiles are the grid's, and the scratch has room for them.
pub(super) struct Gather<'a, S: Simd, const READ: usize, const P: usize> {
    pub grid: &'a Grid,
    pub from: *const S::Elem,
    pub pixel: usize,
    pub channels: usize,
    pub tiles: Range<usize>,
    pub to: Scratch<S::Elem>,
}

impl<S: Simd, const READ: usize, const P: usize> Kernel for Gather<'_, S, READ, P> {
    #[inline(always)]
    fn run(self) {
        let Gather { grid, from, pixel, channels, tiles, to: Scratch { at: to, tile, product } } = self;
        let windows = READ == P;
        let (h, w, pad) = if windows { (grid.h, grid.w, grid.pad) } else { (grid.oh, grid.ow, 0) };
        let zeros = [S::Elem::ZERO; BLOCK];
        for (i, t) in tiles.enumerate() {
            let (image, row, col) = grid.place(t);
            // Rows and columns of the window that lie on the image.
            let rows = pad.saturating_sub(row)..(h + pad).saturating_sub(row).min(READ);
            let cols = pad.saturating_sub(col)..(w + pad).saturating_sub(col).min(READ);
            // Perhaps outside, and then never read.
            let corner = from
                .wrapping_add(((image * h + row) * w + col) * pixel)
                .wrapping_sub((pad * w + pad) * pixel);
            let whole = rows.len() == READ && cols.len() == READ;
            let window = Window { whole, zeros: &zeros, corner, row: w * pixel, pixel, rows, cols };
            for c in (0..channels).step_by(S::LANES) {
                // Rows first: pixels that lie side by side are read one after another.
                // SAFETY: the scratch has room; `Window` reads only pixels of the image.
                unsafe {
                    let to = to.add(i * tile + c);
                    let mut half = [[S::splat(S::Elem::ZERO); P]; READ];
                    for (a, half) in half.iter_mut().enumerate() {
                        *half = transform::<S, READ, P>(window.row(a, c));
                    }
                    for b in 0..P {
                        store_column::<S, P>(transform(across(&half, b)), b, to, product);
                    }
                }
            }
        }
    }
}

/// What [`Gather`] does along a dimension.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn transform<S: Simd, const READ: usize, const P: usize>(pixels: [S; READ]) -> [S; P] {
    // SAFETY: the caller's.
    unsafe {
        if READ == P {
            let mut window = [pixels[0]; P];
            window.copy_from_slice(&pixels);
            points::data(window)
        } else {
            points::evaluate::<S, READ, P, false>(pixels)
        }
    }
}

/// Pixels under a tile or its window.
struct Window<'a, T> {
    /// Whether all are inside of the image; what to read where they are not.
    whole: bool,
    zeros: &'a [T; BLOCK],
    corner: *const T,
    /// Numbers from a row to the next one, and from a pixel to the next one.
    row: usize,
    pixel: usize,
    /// Those inside of the image.
    rows: Range<usize>,
    cols: Range<usize>,
}

impl<T: Real> Window<'_, T> {
    /// A vector of channels from `c` on of each of the N pixels of row `a`; zeros outside.
    ///
    /// # Safety
    /// The machine has `S`; pixels inside can be read.
    #[inline(always)]
    unsafe fn row<S: Simd<Elem = T>, const N: usize>(&self, a: usize, c: usize) -> [S; N] {
        // SAFETY: the caller's.
        unsafe {
            let mut row = [S::splat(T::ZERO); N];
            for (b, v) in row.iter_mut().enumerate() {
                let at = self.corner.wrapping_add(a * self.row + b * self.pixel + c);
                let here = self.whole || (self.rows.contains(&a) && self.cols.contains(&b));
                *v = S::load(if here { at } else { self.zeros.as_ptr() });
            }
            row
        }
    }
}

/// # Safety
/// `to` has room for all products.
#[inline(always)]
pub(super) unsafe fn store_column<S: Simd, const P: usize>(
    column: [S; P],
    b: usize,
    to: *mut S::Elem,
    product: usize,
) {
    for (a, v) in column.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { v.store(to.add((a * P + b) * product)) };
    }
}

/// Vectors of column `b` of P × P products.
///
/// # Safety
/// `from` is good for all products.
#[inline(always)]
pub(super) unsafe fn load_column<S: Simd, const P: usize>(
    from: *const S::Elem,
    b: usize,
    product: usize,
) -> [S; P] {
    // SAFETY: the caller's.
    unsafe {
        let mut column = [S::splat(S::Elem::ZERO); P];
        for (a, v) in column.iter_mut().enumerate() {
            *v = S::load(from.add((a * P + b) * product));
        }
        column
    }
}

/// y (+)= Aᵀ m A of the products of some channels of tiles.
///
/// # Safety
/// As for [`Gather`], of what tiles lie on; nobody else has these channels of these tiles.
pub(super) struct Scatter<'a, S: Simd, const SIDE: usize, const P: usize> {
    pub grid: &'a Grid,
    pub from: Scratch<S::Elem>,
    pub channels: usize,
    pub tiles: Range<usize>,
    pub to: *mut S::Elem,
    pub pixel: usize,
    pub accumulate: bool,
}

impl<S: Simd, const SIDE: usize, const P: usize> Kernel for Scatter<'_, S, SIDE, P> {
    #[inline(always)]
    fn run(self) {
        let Scatter { grid, from, channels, tiles, to, pixel, accumulate } = self;
        for (i, t) in tiles.enumerate() {
            let (image, row, col) = grid.place(t);
            let (rows, cols) = ((grid.oh - row).min(SIDE), (grid.ow - col).min(SIDE));
            for c in (0..channels).step_by(S::LANES) {
                // SAFETY: within what the maker vouches for; no pixel outside is written.
                unsafe {
                    let tile = from.at.add(i * from.tile + c);
                    let mut half = [[S::splat(S::Elem::ZERO); SIDE]; P];
                    for (b, half) in half.iter_mut().enumerate() {
                        let column = load_column::<S, P>(tile, b, from.product);
                        *half = points::coefficients::<S, SIDE, P, false>(column);
                    }
                    let corner = to.add(((image * grid.oh + row) * grid.ow + col) * pixel + c);
                    for a in 0..SIDE {
                        let row = points::coefficients::<S, SIDE, P, false>(across(&half, a));
                        for (b, v) in row.into_iter().enumerate() {
                            if a < rows && b < cols {
                                let at = corner.add((a * grid.ow + b) * pixel);
                                if accumulate { S::load(at).plus(v) } else { v }.store(at);
                            }
                        }
                    }
                }
            }
        }
    }
}
