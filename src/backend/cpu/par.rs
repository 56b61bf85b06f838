//! Parallel loops that allocate nothing, on the team of threads that runs the program.
//!
//! What a task computes never depends on who runs it or on how many threads there are; these
//! helpers only distribute fixed tasks. A kernel that wants the same bits on any number of threads
//! cuts its work by shape, gives every piece to one task, and combines pieces in index order.

use super::team;

/// Calls `f(i)` for every `i` in `0..tasks`, in parallel.
pub fn for_each(tasks: usize, f: &(impl Fn(usize) + Sync)) {
    team::share(tasks, f);
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

/// [`for_each_part`] where each running task also gets `per_lane` elements of `scratch` with
/// anything in them.
///
/// `scratch` holds at least `lanes` such pieces; no more than that many parts are worked on at a
/// time (and no more than a few a thread, so that scratch stays in cache).
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
    let threads = team::threads();
    // Four pieces a thread are enough to even out the ends.
    let lanes = if threads == 1 { 1 } else { lanes.min(4 * threads) }.clamp(1, parts);
    let (len, scratch_len) = (out.len(), scratch.len());
    assert!(start(parts) <= len && lanes * per_lane <= scratch_len, "parts and scratch must fit");
    let (out, scratch) = (Start(out.as_mut_ptr()), Start(scratch.as_mut_ptr()));
    for_each(lanes, &|lane| {
        // SAFETY: lanes have scratch of their own, within its length.
        let scratch = unsafe { scratch.piece(lane * per_lane, per_lane) };
        for i in parts * lane / lanes..parts * (lane + 1) / lanes {
            let (from, to) = (start(i), start(i + 1));
            assert!(from <= to && to <= len, "part {i} is {from}..{to} of {len}");
            // SAFETY: within the output; parts do not overlap, since `start` does not decrease.
            f(i, unsafe { out.piece(from, to - from) }, scratch);
        }
    });
}

/// Where memory begins that tasks write disjoint pieces of.
struct Start<T>(*mut T);

// SAFETY: tasks get disjoint pieces.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// # Safety
    /// The piece lies in the memory, and nobody else has any of it.
    #[allow(clippy::mut_from_ref, reason = "pieces are disjoint by the caller's promise")]
    unsafe fn piece(&self, from: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}
