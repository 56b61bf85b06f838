//! Weights laid out the way the correlation tiles read them.

use super::{BLOCK, ConvShape};
use crate::backend::cpu::par;
use crate::backend::cpu::real::Real;

/// Blocks that a task packs.
const BLOCKS: usize = 8;

/// Panels `[group][block][tap][channel in][width]`: a group is two vectors of output channels (the
/// last one perhaps one), a block is [`BLOCK`] input channels. Output channels are padded with
/// zeros to whole vectors.
///
/// Where channels come in groups, each has panels of its own; but where they spread over lanes, a
/// panel's group is one vector, and a block one input channel of each group of channels.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cpu) struct Panels {
    pub taps: usize,
    /// Channels summed over.
    pub k: usize,
    /// Output channels.
    pub m: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// Groups of channels, of which each has its own `k`.
    pub apart: usize,
}

impl Panels {
    /// Output channels in a row: of all groups of channels if they spread over lanes, else of one.
    fn own(&self) -> usize {
        if spreads(self.apart, self.m) { self.m } else { self.m / self.apart }
    }
    /// Most vectors in a group, most channels in a block.
    fn most(&self) -> (usize, usize) {
        if spreads(self.apart, self.m) { (1, 1) } else { (2, BLOCK) }
    }
    fn vectors(&self) -> usize {
        self.own().div_ceil(self.lanes)
    }
    /// Which channels in a row group `g` is of, and how many vectors are before it there.
    fn at(&self, g: usize) -> (usize, usize) {
        let (most, groups) = (self.most().0, self.vectors().div_ceil(self.most().0));
        (g / groups, most * (g % groups))
    }
    pub fn groups(&self) -> usize {
        self.m / self.own() * self.vectors().div_ceil(self.most().0)
    }
    /// Vectors in group `g`.
    pub fn group_vectors(&self, g: usize) -> usize {
        (self.vectors() - self.at(g).1).min(self.most().0)
    }
    /// First output channel of group `g`, and how many it has.
    pub fn columns(&self, g: usize) -> (usize, usize) {
        let (row, before) = self.at(g);
        let first = before * self.lanes;
        (row * self.own() + first, (self.own() - first).min(self.group_vectors(g) * self.lanes))
    }
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(self.most().1)
    }
    pub fn block_channels(&self, cb: usize) -> usize {
        (self.k - cb * self.most().1).min(self.most().1)
    }
    pub fn len(&self) -> usize {
        self.taps * self.k * self.m / self.own() * self.vectors() * self.lanes
    }
    /// Where the panel of group `g` and block `cb` starts.
    pub fn start(&self, g: usize, cb: usize) -> usize {
        let (row, before) = self.at(g);
        let width = self.group_vectors(g) * self.lanes;
        let vectors = row * self.vectors() + before;
        self.taps * (self.k * vectors * self.lanes + cb * self.most().1 * width)
    }

    /// Packs HWIO weights. Not transposed: k is their input channels (`[taps][k][m]`); transposed,
    /// for the data gradient: k is their output channels (`[taps][m][k]`; in groups of channels
    /// `[taps][m/apart][apart][k]`).
    pub fn pack<T: Real>(&self, w: &[T], transposed: bool, out: &mut [T]) {
        let blocks = self.blocks();
        let each = blocks.div_ceil(BLOCKS);
        let parts = self.groups() * each;
        let start = |i| if i == parts { self.len() } else { self.start(i / each, i % each * BLOCKS) };
        par::for_each_part(out, parts, &start, &|i, mut out| {
            let (g, first) = (i / each, i % each * BLOCKS);
            for cb in first..blocks.min(first + BLOCKS) {
                let block;
                (block, out) = out.split_at_mut(self.block_len(g, cb));
                self.pack_block(w, transposed, g, cb, block);
            }
        });
    }

    /// Numbers in block `cb` of group `g`.
    fn block_len(&self, g: usize, cb: usize) -> usize {
        self.taps * self.block_channels(cb) * self.group_vectors(g) * self.lanes
    }

    fn pack_block<T: Real>(&self, w: &[T], transposed: bool, g: usize, cb: usize, out: &mut [T]) {
        let width = self.group_vectors(g) * self.lanes;
        let (k0, kc) = (cb * self.most().1, self.block_channels(cb));
        let (m0, mc) = self.columns(g);
        let own = self.m / self.apart;
        for (tap, out) in out.chunks_exact_mut(kc * width).enumerate() {
            if mc < width {
                out.fill(T::ZERO);
            }
            if transposed {
                for m in 0..mc {
                    let (of, m_own) = ((m0 + m) / own, (m0 + m) % own);
                    let from = &w[((tap * own + m_own) * self.apart + of) * self.k + k0..][..kc];
                    for (to, from) in out[m..].iter_mut().step_by(width).zip(from) {
                        *to = *from;
                    }
                }
            } else {
                for (k, out) in out.chunks_exact_mut(width).enumerate() {
                    let from = &w[(tap * self.k + k0 + k) * self.m + m0..][..mc];
                    // The usual length as a constant: vectors instead of a call.
                    match (out.first_chunk_mut::<{ 2 * BLOCK }>(), from.first_chunk()) {
                        (Some(to), Some(from)) => *to = *from,
                        _ => out[..mc].copy_from_slice(from),
                    }
                }
            }
        }
    }
}

/// Whether groups have so few of the product's channels that a vector takes those of several.
pub(super) fn spreads(groups: usize, outs: usize) -> bool {
    groups > 1 && 4 * outs <= groups * BLOCK
}

/// Whether a kernel row's pixels fit side by side in one block (see [`super::padded::Padded`]).
pub(super) fn folds(s: &ConvShape) -> bool {
    s.groups == 1 && s.kw > 1 && s.kw * s.ci <= BLOCK
}
