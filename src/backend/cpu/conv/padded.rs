//! The zero-padded, channel-blocked copy of (a band of) an image that the tiles read.

use super::pack::{folds, spreads};
use super::{BLOCK, ConvShape};
use crate::backend::cpu::real::Real;

/// Layout of one *unit* of scratch: a band of rows of one image `[h,w,c]`, as
/// `[blocks][planes][rows][cols][BLOCK]`.
///
/// With step s the image is dealt out to s × s planes by the parity of row and column, so that a
/// strided tap reads neighbouring pixels. Plane (f, g) row r column c holds image row
/// `(band + r)·s + f − top`, column `c·s + g − left`, zero outside the image.
///
/// *Folded* (`fold` > 1, when `fold · c ≤ BLOCK`): the `fold` pixels under a kernel row are laid
/// side by side as channels, so that images of 1 or 3 channels do not leave the tiles idle; columns
/// are then output columns, and planes are by row parity only.
///
/// *Grouped* (`groups` > 1): each group of channels is a part that has a copy of its own. *Spread*
/// (groups are narrow): a part is 16 of the product's channels. They are the lanes, and in block i
/// each has channel i of its own group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padded {
    /// Source image height, width and channels.
    pub h: usize,
    pub w: usize,
    pub c: usize,
    /// s.
    pub step: usize,
    /// Rows of zeros above and columns of zeros left of the image.
    pub top: usize,
    pub left: usize,
    /// Rows and columns of a plane.
    pub rows: usize,
    pub cols: usize,
    /// Pixels side by side in one (1: not folded).
    pub fold: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Channels of the product.
    pub outs: usize,
}

impl Padded {
    /// Of a convolution's images; `rows` are those that a band needs beyond its own.
    pub fn of_images(s: &ConvShape) -> Padded {
        let fold = if folds(s) { s.kw } else { 1 };
        Padded {
            h: s.h,
            w: s.w,
            c: s.ci,
            step: s.stride,
            top: s.pad,
            left: s.pad,
            rows: (s.kh - 1) / s.stride,
            cols: if fold > 1 { s.ow() } else { s.ow() + (s.kw - 1) / s.stride },
            fold,
            groups: s.groups,
            outs: s.co,
        }
    }
    pub fn spread(&self) -> bool {
        spreads(self.groups, self.outs)
    }
    /// Channels of a pixel of the copy that a channel of the product is summed over.
    pub fn channels(&self) -> usize {
        self.fold * self.c / self.groups
    }
    /// Parts of the product's channels that have copies of their own.
    pub fn parts(&self) -> usize {
        if self.spread() { self.outs.div_ceil(BLOCK) } else { self.groups }
    }
    /// Blocks of a part's channels.
    pub fn blocks(&self) -> usize {
        if self.spread() { self.channels() } else { self.channels().div_ceil(BLOCK) }
    }
    /// Channels in block `cb` of all parts', where they do not spread.
    pub fn block_channels(&self, cb: usize) -> usize {
        (self.channels() - cb % self.blocks() * BLOCK).min(BLOCK)
    }
    /// The source's channel in each lane of block `i` of a part, where they spread.
    fn lanes(&self, part: usize, i: usize) -> [usize; BLOCK] {
        let channel = |out: usize| out / (self.outs / self.groups) * self.channels() + i;
        std::array::from_fn(|lane| channel((part * BLOCK + lane).min(self.outs - 1)))
    }
    pub fn planes(&self) -> usize {
        if self.fold > 1 { self.step } else { self.step * self.step }
    }
    pub fn plane_len(&self) -> usize {
        self.rows * self.cols * BLOCK
    }
    pub fn block_len(&self) -> usize {
        self.planes() * self.plane_len()
    }
    /// Where tap (a, b) of a forward correlation finds output pixel (0, 0) of the band (b = 0 when
    /// folded).
    pub fn tap_offset(&self, a: usize, b: usize) -> usize {
        let plane = if self.fold > 1 { a % self.step } else { (a % self.step) * self.step + b % self.step };
        plane * self.plane_len() + ((a / self.step) * self.cols + b / self.step) * BLOCK
    }

    /// Writes block `cb` of all parts' of the band that starts at plane row `band` of `image` to
    /// `out` (`block_len` numbers).
    ///
    /// Lanes beyond the block's channels may hold anything; no tile reads them.
    #[inline(always)]
    pub fn fill<T: Real>(&self, image: &[T], band: usize, cb: usize, out: &mut [T]) {
        for (plane, out) in out[..self.block_len()].chunks_exact_mut(self.plane_len()).enumerate() {
            let (f, g) = if self.fold > 1 { (plane, 0) } else { (plane / self.step, plane % self.step) };
            for (r, row) in out.chunks_exact_mut(self.cols * BLOCK).enumerate() {
                let at = (band + r) * self.step + f;
                if at < self.top || at >= self.top + self.h {
                    row.fill(T::ZERO);
                    continue;
                }
                let line = (at - self.top) * self.w * self.c;
                if self.fold > 1 {
                    self.fill_folded(image, line, row);
                } else {
                    self.fill_row(&image[line..][..self.w * self.c], g, cb, row);
                }
            }
        }
    }

    #[inline(always)]
    fn fill_row<T: Real>(&self, line: &[T], g: usize, cb: usize, row: &mut [T]) {
        // Columns from..to of the plane lie inside the image.
        let from = self.left.saturating_sub(g).div_ceil(self.step).min(self.cols);
        let to = (self.left + self.w).saturating_sub(g).div_ceil(self.step).clamp(from, self.cols);
        row[..from * BLOCK].fill(T::ZERO);
        row[to * BLOCK..].fill(T::ZERO);
        let inside = &mut row[from * BLOCK..to * BLOCK];
        if inside.is_empty() {
            return;
        }
        let source = &line[(from * self.step + g - self.left) * self.c..];
        let pixels = inside.chunks_exact_mut(BLOCK);
        let (part, i) = (cb / self.blocks(), cb % self.blocks());
        let (first, count) = if !self.spread() {
            (part * self.channels() + i * BLOCK, self.block_channels(cb))
        } else if self.groups == self.c && self.c == self.outs {
            // Depthwise: a part's channels are neighbours.
            (part * BLOCK, (self.c - part * BLOCK).min(BLOCK))
        } else {
            let lanes = self.lanes(part, i);
            for (pixel, from) in pixels.zip(source.chunks(self.step * self.c)) {
                for (to, lane) in pixel.iter_mut().zip(lanes) {
                    *to = from[lane];
                }
            }
            return;
        };
        let source = &source[first..];
        match count {
            BLOCK => {
                for (pixel, from) in pixels.zip(source.chunks(self.step * self.c)) {
                    pixel.copy_from_slice(&from[..BLOCK]);
                }
            }
            k => {
                for (pixel, from) in pixels.zip(source.chunks(self.step * self.c)) {
                    for (to, from) in pixel[..k].iter_mut().zip(&from[..k]) {
                        *to = *from;
                    }
                }
            }
        }
    }

    /// `row` of the copy from the image's row that starts at `line`.
    #[inline(always)]
    fn fill_folded<T: Real>(&self, image: &[T], line: usize, row: &mut [T]) {
        // Where all of a kernel row's pixels lie inside the image, a block is copied whole: its
        // further lanes get what comes next there.
        let inside = |q: usize| {
            let at = q * self.step;
            let from = line + at.checked_sub(self.left)? * self.c;
            (at + self.fold <= self.left + self.w).then(|| image.get(from..from + BLOCK)).flatten()
        };
        for (q, pixel) in row.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            if let Some(from) = inside(q) {
                pixel.copy_from_slice(from);
                continue;
            }
            for (b, to) in pixel[..self.channels()].chunks_exact_mut(self.c).enumerate() {
                let column = (q * self.step + b).checked_sub(self.left).filter(|w| *w < self.w);
                for (c, to) in to.iter_mut().enumerate() {
                    *to = column.map_or(T::ZERO, |w| image[line + w * self.c + c]);
                }
            }
        }
    }
}
