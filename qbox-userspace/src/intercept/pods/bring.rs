//! Namespaces brought in line with what holds for the pods in them: listened in, left alone, let go of. Knows not how pods are seen.

use super::super::accept::{Task, accept};
use super::super::entry::{Open, Pod, State, Wanted};
use super::super::error::InterceptError;
use super::super::listen::{Listeners, listeners};
use super::super::sys;
use super::{CLOSING, Pods, QUICK_TRIES};
use crate::causes::chain;
use aya::maps::MapError;
use qbox_common::{names, reach};
use socket2::Domain;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::net::TcpListener;

impl Pods {
    pub(super) fn align_or_remove(&mut self, inode: u64) {
        match self.entries.get(&inode) {
            Some(entry) if entry.members.is_empty() => self.remove(inode),
            _ => self.align(inode),
        }
    }

    /// Brings those in such a state in line.
    pub(super) fn try_again(&mut self, which: fn(&State) -> bool) {
        let due = self.entries.iter().filter(|(_, entry)| which(&entry.state));
        let due: Vec<u64> = due.map(|(inode, _)| *inode).collect();
        for inode in due {
            self.align(inode);
        }
    }

    /// Brings a namespace in line with what holds for its pods.
    pub(super) fn align(&mut self, inode: u64) {
        let Some(entry) = self.entries.get_mut(&inode) else {
            return;
        };
        let wanted = entry.wanted();
        let state = std::mem::replace(&mut entry.state, State::Unknown);
        let state = match (wanted, state) {
            (Wanted::Captured, State::Open(open)) => State::Open(open),
            (Wanted::Captured, State::Closing { open, .. }) => self.turn(open),
            (Wanted::Captured, State::Failed { tries, .. }) => self.attempt(inode, tries.saturating_add(1)),
            (Wanted::Captured, State::Unknown | State::Left { .. }) => self.attempt(inode, 1),
            (_, State::Open(open)) => {
                self.mark(open.cookie, wanted);
                open.pod.left.store(true, Relaxed);
                self.leaving = true;
                tracing::info!(
                    pod = open.pod.name,
                    netns = inode,
                    "no longer captured: a pod is left alone"
                );
                State::Closing {
                    open,
                    until: Instant::now() + CLOSING,
                }
            }
            (_, State::Closing { open, until }) => {
                self.mark(open.cookie, wanted);
                State::Closing { open, until }
            }
            (Wanted::Left, State::Left { cookie }) => State::Left { cookie },
            (Wanted::Left, State::Unknown | State::Failed { .. }) => self.leave(inode),
            (Wanted::Unknown, State::Left { cookie }) => {
                self.mark(cookie, wanted);
                State::Unknown
            }
            (Wanted::Unknown, State::Unknown | State::Failed { .. }) => State::Unknown,
        };
        if let Some(entry) = self.entries.get_mut(&inode) {
            entry.state = state;
        }
    }

    /// Lets go of the listeners of what has been left alone for a while.
    pub(super) fn finish_closing(&mut self) {
        let now = Instant::now();
        for entry in self.entries.values_mut() {
            let cookie = match &entry.state {
                State::Closing { open, until } if *until <= now => open.cookie,
                _ => continue,
            };
            entry.state = match entry.wanted() {
                Wanted::Left => State::Left { cookie },
                Wanted::Captured | Wanted::Unknown => State::Unknown,
            };
            self.receiver.origins.forget(cookie);
        }
    }

    /// Tells the programs that a namespace is left alone, or, where that is unknown, nothing of it.
    pub(super) fn mark(&mut self, cookie: u64, wanted: Wanted) {
        let done = match wanted {
            Wanted::Left => self.namespaces.insert(cookie, 0, 0),
            Wanted::Captured | Wanted::Unknown => match self.namespaces.remove(&cookie) {
                Err(MapError::KeyNotFound) => Ok(()),
                done => done,
            },
        };
        if let Err(error) = done {
            tracing::warn!(error = chain(&error), "can't stop capturing a pod");
        }
        self.may_be_announced(cookie);
    }

    /// Tells the programs that a namespace is left alone.
    fn leave(&mut self, inode: u64) -> State {
        let netns = self.entries.get(&inode).and_then(|entry| entry.enter(inode));
        // It is tried again when a process is seen in it again.
        let Some(netns) = netns else { return State::Unknown };
        let cookie = netns
            .tcp_socket(Domain::IPV4)
            .and_then(|socket| sys::netns_cookie(&socket));
        match cookie {
            Ok(cookie) => {
                self.mark(cookie, Wanted::Left);
                State::Left { cookie }
            }
            Err(error) => {
                tracing::debug!(netns = inode, %error, "a namespace can't be asked for its cookie");
                State::Unknown
            }
        }
    }

    /// Has the programs turn the connections of a namespace that has listeners.
    fn turn(&mut self, open: Open) -> State {
        match self.namespaces.insert(open.cookie, open.reached, 0) {
            Ok(()) => {
                open.pod.left.store(false, Relaxed);
                tracing::info!(
                    pod = open.pod.name,
                    netns = open.pod.netns.inode(),
                    "capturing a pod again"
                );
                State::Open(open)
            }
            Err(error) => State::Failed {
                error: InterceptError::map(names::NAMESPACES, &error),
                tries: 1,
            },
        }
    }

    /// Opens a namespace, for the first time or again.
    fn attempt(&mut self, inode: u64, tries: u32) -> State {
        let entry = self.entries.get(&inode);
        let pod = entry.and_then(|entry| {
            let netns = entry.enter(inode)?;
            Some(Arc::new(Pod {
                name: entry.name(),
                netns,
                left: Arc::default(),
            }))
        });
        // All of its processes may have ended, as the next look will tell.
        let Some(pod) = pod else { return State::Unknown };
        match self.open(&pod) {
            Ok(open) => State::Open(open),
            Err(error) => {
                // Once, and not while it may be a new namespace.
                let first = if error.is_passing() { QUICK_TRIES } else { 1 };
                if tries == first {
                    tracing::warn!(pod = pod.name, error = chain(&error), "the pod isn't captured");
                }
                State::Failed { error, tries }
            }
        }
    }

    /// Listens in the pod's namespace, and then has the programs turn its connections.
    fn open(&mut self, pod: &Arc<Pod>) -> Result<Open, InterceptError> {
        let Listeners {
            cookie,
            reached,
            sockets,
        } = listeners(pod, self.port)?;
        let mut tasks = Vec::new();
        let mut listeners = Vec::new();
        for socket in sockets {
            let failed = |source| InterceptError::Listen {
                pod: pod.name.clone(),
                source,
            };
            let listener = TcpListener::from_std(socket.into()).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let (receiver, pod) = (Arc::clone(&self.receiver), Arc::clone(pod));
            let name = format!("{} {address}", pod.name);
            listeners.push(address);
            tasks.push(Task::spawn(accept(listener, name, move |stream, peer| {
                receiver.receive(&pod, cookie, stream, peer);
            })));
        }
        let inserted = self.namespaces.insert(cookie, reached, 0);
        inserted.map_err(|error| InterceptError::map(names::NAMESPACES, &error))?;
        self.expected.remove(&cookie);
        let (netns, ipv6) = (pod.netns.inode(), reached & reach::V6 != 0);
        tracing::info!(pod = pod.name, netns, ipv6, "capturing a pod");
        Ok(Open {
            pod: Arc::clone(pod),
            cookie,
            reached,
            listeners,
            _tasks: tasks,
        })
    }

    pub(super) fn remove(&mut self, inode: u64) {
        let Some(entry) = self.entries.remove(&inode) else {
            return;
        };
        self.full = false;
        match entry.state {
            State::Open(open) | State::Closing { open, .. } => {
                // First nothing is turned any more; then nobody listens.
                self.mark(open.cookie, Wanted::Unknown);
                let (cookie, pod) = (open.cookie, Arc::clone(&open.pod));
                drop(open);
                self.receiver.origins.forget(cookie);
                tracing::info!(pod = pod.name, netns = inode, "a pod is gone");
            }
            State::Left { cookie } => self.mark(cookie, Wanted::Unknown),
            State::Unknown | State::Failed { .. } => {}
        }
    }
}
