//! Parallel loops that allocate nothing: recursive `rayon::join` over index ranges.
//!
//! What a task computes never depends on who runs it or on how many threads there are; these helpers only
//! distribute fixed tasks. A kernel that wants the same bits on any number of threads cuts its work by shape,
//! gives every piece to one task, and combines pieces in index order.

/// Calls `f(i)` for every `i` in `0..tasks`, in parallel.
pub fn for_each(tasks: usize, f: &(impl Fn(usize) + Sync)) {
    fn go(from: usize, to: usize, f: &(impl Fn(usize) + Sync)) {
        match to - from {
            0 => {}
            1 => f(from),
            n => {
                let mid = from + n / 2;
                rayon::join(|| go(from, mid, f), || go(mid, to, f));
            }
        }
    }
    if rayon::current_num_threads() == 1 { (0..tasks).for_each(f) } else { go(0, tasks, f) }
}

/// Cuts `out` into `parts` consecutive parts and calls `f(i, part)` for each, in parallel.
///
/// Part `i` is `out[start(i)..start(i + 1)]`; `start` must not decrease, with `start(0) == 0` and
/// `start(parts) == out.len()`.
pub fn for_each_part<T: Send>(
    out: &mut [T],
    parts: usize,
    start: &(impl Fn(usize) -> usize + Sync),
    f: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let lanes = parts;
    for_each_part_with(out, &mut [] as &mut [u8], 0, lanes, parts, start, &|i, part, _: &mut [u8]| {
        f(i, part)
    });
}

/// The same with parts of `len` elements each, the last one perhaps shorter.
pub fn for_each_chunk<T: Send>(out: &mut [T], len: usize, f: &(impl Fn(usize, &mut [T]) + Sync)) {
    let total = out.len();
    for_each_part(out, total.div_ceil(len), &|i| (i * len).min(total), f);
}

/// [`for_each_part`] where each running task also gets `per_lane` elements of `scratch` with anything in them.
///
/// `scratch` holds at least `lanes` such pieces; no more than that many parts are worked on at a time (and no more
/// than a few a thread, so that scratch stays in cache).
pub fn for_each_part_with<T: Send, S: Send>(
    out: &mut [T],
    scratch: &mut [S],
    per_lane: usize,
    lanes: usize,
    parts: usize,
    start: &(impl Fn(usize) -> usize + Sync),
    f: &(impl Fn(usize, &mut [T], &mut [S]) + Sync),
) {
    if parts == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    // Four pieces a thread are enough for stealing to even out the ends.
    let lanes = if threads == 1 { 1 } else { lanes.min(4 * threads) }.clamp(1, parts);
    let work = Work { per_lane, start, f };
    work.go(0, parts, lanes, out, &mut scratch[..lanes * per_lane]);
}

struct Work<'a, P, F> {
    per_lane: usize,
    start: &'a P,
    f: &'a F,
}

impl<P: Fn(usize) -> usize + Sync, F> Work<'_, P, F> {
    fn go<T: Send, S: Send>(&self, from: usize, to: usize, lanes: usize, mut out: &mut [T], scratch: &mut [S])
    where
        F: Fn(usize, &mut [T], &mut [S]) + Sync,
    {
        if lanes == 1 {
            for i in from..to {
                let (part, rest) = out.split_at_mut((self.start)(i + 1) - (self.start)(i));
                (self.f)(i, part, scratch);
                out = rest;
            }
            return;
        }
        let left = lanes / 2;
        let mid = from + (to - from) * left / lanes;
        let (out_left, out_right) = out.split_at_mut((self.start)(mid) - (self.start)(from));
        let (scratch_left, scratch_right) = scratch.split_at_mut(left * self.per_lane);
        rayon::join(
            || self.go(from, mid, left, out_left, scratch_left),
            || self.go(mid, to, lanes - left, out_right, scratch_right),
        );
    }
}
