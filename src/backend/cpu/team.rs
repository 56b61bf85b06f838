//! A team of threads that wait for work awake: the thread that runs a program, and helpers from a
//! rayon pool.
//!
//! Most kernels of a small network take some ten microseconds, as long as it takes to wake a
//! thread. So helpers look for the next piece of work in a loop for a while before they fall
//! asleep, and between two kernels of one program they never do. Handing out work allocates
//! nothing.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long helpers look for work before they sleep. Longer than the pause between two training
/// steps.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks at the work before the processor is offered to others: there may be more threads than
/// cores.
const LOOKS: u32 = 64;

/// Threads that share the tasks of a loop.
pub struct Team {
    /// The helpers; a team of one has none. Dropped after `shared` has told them to stop.
    _pool: Option<rayon::ThreadPool>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Per member, the tasks of its own share that nobody has taken: (number of the job, how many).
    shares: Vec<Share>,
    /// Read only by who has taken a task of it, which is not done before: so the job is still
    /// there.
    job: UnsafeCell<Option<Job>>,
    /// Tasks that are done.
    done: AtomicUsize,
    /// Whether one panicked, and with what.
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    stop: AtomicBool,
}

/// One member's share: 32 bits job, 32 bits tasks left. On a cache line of its own.
#[repr(align(128))]
struct Share(AtomicU64);

const TASK_BITS: u32 = 32;
const TASKS: u64 = (1 << TASK_BITS) - 1;

#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the job is written by the leader alone, while no task of it can be taken; what it points
// at is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

thread_local! {
    /// The team that this thread leads, outside of its tasks.
    static LEADS: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
    /// This thread's number in its team; the leader is 0.
    static MEMBER: Cell<usize> = const { Cell::new(0) };
}

impl Team {
    /// A team of `threads`, the one that calls [`Team::lead`] included.
    ///
    /// # Errors
    /// If the system does not give that many threads.
    pub fn new(threads: usize) -> Result<Team> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
            job: UnsafeCell::new(None),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut pool = None;
        if threads > 1 {
            let helpers = rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build();
            let helpers =
                helpers.map_err(|e| Error::Device(format!("cannot start {threads} threads: {e}")))?;
            let theirs = shared.clone();
            helpers.spawn_broadcast(move |thread| theirs.help(thread.index() + 1));
            pool = Some(helpers);
        }
        Ok(Team { _pool: pool, shared })
    }

    /// Members.
    pub fn threads(&self) -> usize {
        self.shared.shares.len()
    }

    /// Runs `f`, with this thread as the leader: loops of [`super::par`] in it are shared with the
    /// helpers.
    pub fn lead<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let _back = Leading::set(&*self.shared, 0);
        f()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.ring();
    }
}

/// Puts back what a thread led before.
struct Leading(*const Shared, usize);

impl Leading {
    fn set(shared: *const Shared, member: usize) -> Leading {
        Leading(LEADS.replace(shared), MEMBER.replace(member))
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        LEADS.set(self.0);
        MEMBER.set(self.1);
    }
}

/// This thread's number in the team that works: below [`threads`], no two alike at a time.
pub(super) fn member() -> usize {
    MEMBER.get()
}

/// Threads that a loop started here would be shared by.
pub(super) fn threads() -> usize {
    // SAFETY: as for `share`.
    unsafe { LEADS.get().as_ref() }.map_or(1, |team| team.shares.len())
}

/// Calls `f(i)` for every `i` in `0..tasks`, on all members of the team that this thread leads.
/// Each member begins with a share of its own, the same one in every loop of as many tasks, so that
/// what it wrote last is in its cache.
pub(super) fn share(tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    // SAFETY: the pointer is set while `Team::lead` borrows the team, and null otherwise.
    match unsafe { LEADS.get().as_ref() } {
        Some(team) if tasks > 1 && team.shares.len() > 1 && tasks < TASKS as usize => team.run(tasks, f),
        _ => (0..tasks).for_each(f),
    }
}

/// First task of member `i`'s share.
fn start(tasks: usize, members: usize, i: usize) -> usize {
    tasks * i / members
}

impl Shared {
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        // Loops inside tasks are not shared again.
        let _back = Leading::set(std::ptr::null(), 0);
        let members = self.shares.len();
        // SAFETY: only the lifetime is changed. Nobody reads the pointer but who has taken a task,
        // and this function returns after all tasks are done.
        let run =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: all tasks of the job before are done and none of this one can be taken yet:
        // nobody reads.
        unsafe { *self.job.get() = Some(Job { run, tasks }) };
        self.done.store(0, Ordering::Relaxed);
        let number = (self.shares[0].0.load(Ordering::Relaxed) >> TASK_BITS) + 1;
        for (i, share) in self.shares.iter().enumerate() {
            let count = start(tasks, members, i + 1) - start(tasks, members, i);
            // Publishes the job; ordered before the look at the sleepers.
            share.0.store((number << TASK_BITS) | count as u64, Ordering::SeqCst);
        }
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
        while self.work(0) {}
        let mut looks = 0u32;
        while self.done.load(Ordering::Acquire) < tasks {
            pause(&mut looks);
        }
        if self.panicked.swap(false, Ordering::Relaxed) {
            let payload = self.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
            resume_unwind(payload.unwrap_or_else(|| Box::new("a task panicked")));
        }
    }

    /// Takes a task, of member `me`'s own share if there is one left, and runs it. False if there
    /// is none.
    fn work(&self, me: usize) -> bool {
        let members = self.shares.len();
        for i in (me..members).chain(0..me) {
            let share = &self.shares[i].0;
            let mut seen = share.load(Ordering::Acquire);
            while seen & TASKS > 0 {
                match share.compare_exchange_weak(seen, seen - 1, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        // SAFETY: a task of this job was taken and is not done, so the leader waits
                        // and the job is there.
                        let job = unsafe { *self.job.get() };
                        if let Some(job) = job {
                            let end = start(job.tasks, members, i + 1);
                            self.task(job, end - (seen & TASKS) as usize);
                        }
                        return true;
                    }
                    Err(now) => seen = now,
                }
            }
        }
        false
    }

    fn task(&self, job: Job, i: usize) {
        // SAFETY: see `work`.
        let run = unsafe { &*job.run };
        // The leader must not leave before all tasks are done, and a helper's panic is the leader's
        // to raise.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run(i))) {
            *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(payload);
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Release);
    }

    /// A helper's life.
    fn help(&self, me: usize) {
        MEMBER.set(me);
        let mut looks = 0;
        let mut idle_since = None;
        while !self.stop.load(Ordering::Relaxed) {
            if self.work(me) {
                (looks, idle_since) = (0, None);
                continue;
            }
            pause(&mut looks);
            if looks.is_multiple_of(LOOKS) && idle_since.get_or_insert_with(Instant::now).elapsed() > AWAKE {
                self.sleep();
                (looks, idle_since) = (0, None);
            }
        }
    }

    fn sleep(&self) {
        let mut bed = self.bed.lock().unwrap_or_else(|e| e.into_inner());
        // Said before the last look: the leader publishes work before it looks for sleepers, so one
        // of both sees the other.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::SeqCst)
            && self.shares.iter().all(|s| s.0.load(Ordering::SeqCst) & TASKS == 0)
        {
            bed = self.bell.wait(bed).unwrap_or_else(|e| e.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn ring(&self) {
        // With the lock, so that nobody is between the last look and the wait.
        let _bed = self.bed.lock().unwrap_or_else(|e| e.into_inner());
        self.bell.notify_all();
    }
}

fn pause(looks: &mut u32) {
    *looks = looks.wrapping_add(1);
    if looks.is_multiple_of(LOOKS) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_by_a_member_whatever_their_number() {
        for threads in [1, 2, 3, 8] {
            let mut team = Team::new(threads).unwrap();
            for tasks in [0, 1, 2, 7, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.lead(|| {
                    assert_eq!(super::threads(), threads);
                    share(tasks, &|i| {
                        assert!(member() < threads);
                        // Not shared again: on this thread.
                        share(2, &|_| _ = counts[i].fetch_add(1, Ordering::Relaxed));
                    });
                });
                assert!(
                    counts.iter().all(|c| c.load(Ordering::Relaxed) == 2),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn loops_after_a_pause_wake_the_helpers() {
        let mut team = Team::new(2).unwrap();
        for _ in 0..20 {
            std::thread::sleep(2 * AWAKE);
            let helped = AtomicBool::new(false);
            team.lead(|| {
                share(2, &|_| {
                    helped.fetch_or(member() == 1, Ordering::Relaxed);
                    // Each waits for the other: were the helper not woken, this would take its
                    // time, and end.
                    let since = Instant::now();
                    while !helped.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(5) {
                        std::thread::yield_now();
                    }
                });
            });
            assert!(helped.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_leader_and_the_team_goes_on() {
        let mut team = Team::new(3).unwrap();
        for bad in 0..6 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.lead(|| share(6, &|i| assert_ne!(i, bad, "task {bad}")));
            }));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            team.lead(|| share(10, &|i| _ = sum.fetch_add(i, Ordering::Relaxed)));
            assert_eq!(sum.into_inner(), 45);
        }
    }
}
