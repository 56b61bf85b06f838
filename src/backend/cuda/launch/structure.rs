//! What only moves numbers: shortcuts, parts put together, casts, and the loading of a batch
//! (`kernels/structure.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::divide::FastDiv;
use super::super::driver::{Address, Command, Width};
use super::super::sources::STRUCTURE;
use super::walk::{NONE, Operand, blocks, entries};
use crate::error::Result;
use crate::program::Instr;
use crate::tape::{GatherSpec, Strided};

/// `kernels/structure.cu`.
const THREADS: usize = 256;
const MAX_JOINED: usize = 64;
const MAX_CHANNELS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct StridedParams {
    x: Operand,
    out: Operand,
    groups: FastDiv,
    columns: FastDiv,
    rows: FastDiv,
    stride: FastDiv,
    count: u32,
    h: u32,
    w: u32,
    c: u32,
    p: u32,
    q: u32,
    o: u32,
    before: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PlaceParams {
    x: Operand,
    out: Operand,
    length: u32,
    from: u32,
    end: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JoinParams {
    out: Operand,
    each: FastDiv,
    count: u32,
    xs: [Operand; MAX_JOINED],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GatherParams {
    out: Operand,
    pixels: u64,
    picks: u64,
    channels: FastDiv,
    columns: FastDiv,
    rows: FastDiv,
    count: u32,
    first: u32,
    images: u32,
    h: u32,
    w: u32,
    c: u32,
    pad: i32,
    scale: [f64; MAX_CHANNELS],
    offset: [f64; MAX_CHANNELS],
}

/// Appends the commands of tensors one after another.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn stack(b: &mut Builder, instr: &Instr) -> Result<()> {
    entries(instr.outs[0].len)?;
    let from: Vec<Operand> = instr.args.iter().map(|a| Operand::of(b, a)).collect();
    join(b, &from, instr.args[0].len, Operand::of(b, &instr.outs[0]))
}

/// Appends the command of a copy.
///
/// # Errors
/// As [`stack`].
pub fn copy(b: &mut Builder, instr: &Instr) -> Result<()> {
    let (from, to) = (&instr.args[0], &instr.outs[0]);
    let (source, width) = (b.width(from), b.width(to));
    cast(b, b.address(from), source, b.address(to), width, to.len)
}

/// Copies `len` entries from one width to another; the places do not overlap.
///
/// # Errors
/// If there are more than kernels can count.
pub fn cast(b: &mut Builder, from: Address, width: Width, to: Address, new: Width, len: usize) -> Result<()> {
    if width == new {
        b.commands.push(Command::Copy { from, to, bytes: len * width.bytes() });
        return Ok(());
    }
    entries(len)?;
    if len == 0 {
        return Ok(());
    }
    // Whole quads, then what is left.
    let whole = len / 4 * 4;
    for (at, len) in [(0, whole), (whole, len - whole)].into_iter().filter(|part| part.1 > 0) {
        let part = |address, width| Operand::new(address, width).skip(at);
        join(b, &[part(from, width)], len, part(to, new))?;
    }
    Ok(())
}

/// Appends the command of a shortcut from an image `[n,h,w,c]` (`subsample`), or of its transpose.
///
/// # Errors
/// As [`stack`].
pub fn strided(
    b: &mut Builder,
    instr: &Instr,
    subsample: bool,
    how: Strided,
    [n, h, w, c]: [usize; 4],
) -> Result<()> {
    if instr.outs[0].len == 0 {
        return Ok(());
    }
    let (x, out) = (Operand::of(b, &instr.args[0]), Operand::of(b, &instr.outs[0]));
    let (p, q, o) = (h.div_ceil(how.stride), w.div_ceil(how.stride), how.before + c + how.after);
    entries((n * h * w * c).max(n * p * q * o))?;
    let whole = c.is_multiple_of(4) && how.before.is_multiple_of(4) && how.after.is_multiple_of(4);
    let lanes = if whole { 4 } else { 1 };
    let (rows, columns, channels) = if subsample { (p, q, o) } else { (h, w, c) };
    let count = n * rows * columns * (channels / lanes);
    let params = StridedParams {
        x,
        out,
        groups: FastDiv::new(channels / lanes),
        columns: FastDiv::new(columns),
        rows: FastDiv::new(rows),
        stride: FastDiv::new(how.stride),
        count: count as u32,
        h: h as u32,
        w: w as u32,
        c: c as u32,
        p: p as u32,
        q: q as u32,
        o: o as u32,
        before: how.before as u32,
    };
    let name = if subsample { "subsample" } else { "embed" };
    b.launch(&STRUCTURE, &format!("{name}_{lanes}"), blocks(count, THREADS), THREADS as u32, 0, &params)
}

/// Appends the command of zeros but for the argument, which is put in at entry `at`.
///
/// # Errors
/// As [`stack`].
pub fn place(b: &mut Builder, instr: &Instr, at: usize) -> Result<()> {
    let (len, length) = (instr.args[0].len, instr.outs[0].len);
    entries(length)?;
    if length == 0 {
        return Ok(());
    }
    let (x, out) = (Operand::of(b, &instr.args[0]), Operand::of(b, &instr.outs[0]));
    let whole = at.is_multiple_of(4) && len.is_multiple_of(4) && length.is_multiple_of(4);
    let (name, lanes) = if whole { ("place_4", 4) } else { ("place_1", 1) };
    let params =
        PlaceParams { x, out, length: length as u32, from: at as u32, end: (at + len) as u32, pad: 0 };
    b.launch(&STRUCTURE, name, blocks(length / lanes, THREADS), THREADS as u32, 0, &params)
}

/// Tensors of `len` entries one after another.
fn join(b: &mut Builder, xs: &[Operand], len: usize, out: Operand) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let (name, lanes) = if len.is_multiple_of(4) { ("join_4", 4) } else { ("join_1", 1) };
    for (i, xs) in xs.chunks(MAX_JOINED).enumerate() {
        let count = xs.len() * (len / lanes);
        let mut params = JoinParams {
            out: out.skip(i * MAX_JOINED * len),
            each: FastDiv::new(len / lanes),
            count: count as u32,
            xs: [NONE; MAX_JOINED],
        };
        params.xs[..xs.len()].copy_from_slice(xs);
        b.launch(&STRUCTURE, name, blocks(count, THREADS), THREADS as u32, 0, &params)?;
    }
    Ok(())
}

/// Appends the commands of the loading of a batch of images `[h,w,c]`.
///
/// # Errors
/// As [`stack`].
pub fn gather(b: &mut Builder, instr: &Instr, spec: &GatherSpec, [h, w, c]: [usize; 3]) -> Result<()> {
    entries(instr.outs[0].len)?;
    if instr.outs[0].len == 0 {
        return Ok(());
    }
    let out = Operand::of(b, &instr.outs[0]);
    let (pixels, picks) = (&instr.args[0], &instr.args[1]);
    let n = picks.len / 4;
    for first in (0..c).step_by(MAX_CHANNELS) {
        let channels = MAX_CHANNELS.min(c - first);
        let count = n * h * w * channels;
        let mut params = GatherParams {
            out,
            pixels: b.address(pixels),
            picks: b.address(picks),
            channels: FastDiv::new(channels),
            columns: FastDiv::new(w),
            rows: FastDiv::new(h),
            count: count as u32,
            first: first as u32,
            images: entries(pixels.len / (h * w * c))?,
            h: h as u32,
            w: w as u32,
            c: c as u32,
            pad: spec.pad as i32,
            scale: [0.0; MAX_CHANNELS],
            offset: [0.0; MAX_CHANNELS],
        };
        for i in 0..channels {
            // (pixel/255 − mean)/std
            let (mean, std) = (spec.mean[first + i].0, spec.std[first + i].0);
            params.scale[i] = 1.0 / (255.0 * std);
            params.offset[i] = -mean / std;
        }
        b.launch(&STRUCTURE, "gather", blocks(count, THREADS), THREADS as u32, 0, &params)?;
    }
    Ok(())
}
