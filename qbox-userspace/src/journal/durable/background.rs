//! When the thread that files stands back: it runs where a processor has nothing else to do, until somebody waits for it or much has
//! come meanwhile.
//!
//! It takes about a seventh of what a saga costs, in pieces of some milliseconds, and the scheduler leaves a worker or the writer
//! behind it though another processor is idle: both ran here a moment ago. Under `SCHED_IDLE` (sched(7)) a processor that only files
//! counts as idle. Whoever has to wait for what the thread may hold has to hurry it first, since it may get no processor at all.
//! To be raised again takes `CAP_SYS_NICE`; without it the thread never stands back. No errors.
#![allow(unsafe_code)]

use rustix::thread::{Pid, gettid};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Of one thread, and those that may wait for it.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// The thread, if it may stand back.
    thread: OnceLock<Pid>,
    /// It stands back, or is about to. The thread takes this lock only while it doesn't, so that it is never held for long.
    back: Mutex<bool>,
    /// How many wait for what it may hold.
    hurry: AtomicUsize,
    /// What it does is wanted soon.
    urgent: AtomicBool,
}

/// Somebody waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Hurry<'a>(&'a Background);

impl Background {
    /// For the thread itself, before all else.
    pub(super) fn enter(&self) {
        let tried =
            std::thread::spawn(|| set(None, libc::SCHED_IDLE).and_then(|()| set(None, libc::SCHED_OTHER)));
        match tried.join() {
            Ok(Ok(())) => drop(self.thread.set(gettid())),
            Ok(Err(error)) => tracing::info!(
                %error,
                "the journal's file is written while sagas run: to leave them the processors takes CAP_SYS_NICE"
            ),
            Err(_) => {}
        }
    }

    /// The thread does this, standing back unless somebody waits. It must hold nothing that others wait for without hurrying it.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_wanted() || self.thread.get().is_none() {
            return work();
        }
        *self.back() = true;
        let _ = set(None, libc::SCHED_IDLE);
        // Whoever came before that has found nobody to raise.
        if self.is_wanted() {
            let _ = set(None, libc::SCHED_OTHER);
        }
        let done = work();
        if let Err(error) = set(None, libc::SCHED_OTHER) {
            tracing::warn!(%error, "the journal's filer is left at the lowest priority");
        }
        *self.back() = false;
        done
    }

    /// The thread doesn't stand back until what this gives is dropped.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.hurry.fetch_add(1, Ordering::SeqCst);
        self.raise();
        Hurry(self)
    }

    /// Nor while it is urgent.
    pub(super) fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Ordering::SeqCst);
        if urgent {
            self.raise();
        }
    }

    fn is_wanted(&self) -> bool {
        self.hurry.load(Ordering::SeqCst) > 0 || self.urgent.load(Ordering::SeqCst)
    }

    fn raise(&self) {
        // Under the lock, so that the thread hasn't ended.
        let back = self.back();
        if let Some(thread) = self.thread.get().filter(|_| *back) {
            let _ = set(Some(*thread), libc::SCHED_OTHER);
        }
    }

    fn back(&self) -> MutexGuard<'_, bool> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurry.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sets the scheduling policy of a thread of this process; of this one if none is given.
fn set(thread: Option<Pid>, policy: libc::c_int) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is there while the call reads it. A thread that is no more is an error (ESRCH).
    match unsafe { libc::sched_setscheduler(Pid::as_raw(thread), policy, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// From outside, as anybody sees it.
    fn policy(thread: Pid) -> String {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero()))
            .expect("stat");
        // proc_pid_stat(5): the 41st; two stand before the parenthesis.
        let (_, rest) = stat.rsplit_once(") ").expect("a name");
        rest.split(' ').nth(38).expect("a policy").to_owned()
    }

    #[test]
    fn the_thread_stands_back_until_somebody_waits() {
        let background = Background::default();
        background.enter();
        let may = background.thread.get().is_some();
        let idle = libc::SCHED_IDLE.to_string();
        let other = libc::SCHED_OTHER.to_string();
        let lowest = if may { &idle } else { &other };
        let own = || policy(gettid());
        assert_eq!(&background.run(own), lowest);
        assert_eq!(own(), other);
        {
            let _hurry = background.hurry();
            assert_eq!(background.run(own), other, "somebody waits already");
        }
        background.set_urgent(true);
        assert_eq!(background.run(own), other, "it is urgent already");
        background.set_urgent(false);
        assert_eq!(&background.run(own), lowest);
        assert_eq!(own(), other);
    }

    #[test]
    fn who_waits_raises_the_thread_amid_its_work() {
        let background = Background::default();
        let (tell, told) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let background = &background;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                background.enter();
                background.run(|| {
                    let _ = tell.send(gettid());
                    let _ = may_go_on.recv();
                });
            });
            let thread = told.recv().expect("it works");
            if background.thread.get().is_some() {
                assert_eq!(policy(thread), libc::SCHED_IDLE.to_string());
            }
            let _hurry = background.hurry();
            assert_eq!(policy(thread), libc::SCHED_OTHER.to_string());
            let _ = go_on.send(());
        });
    }
}
