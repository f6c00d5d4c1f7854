//! What a worker's tasks have to send in one turn, handed to the kernel together: one call for all of it (io_uring(7)).
//!
//! A message on its way to a service on the same machine wakes that service, which the scheduler then prefers to whoever sent it: sent one by
//! one, each message costs its sender the processor, and its reader finds nothing else to do. Together they cost that once
//! (docs/performance.md). Nothing waits for others to come: what is put here goes out once those tasks have run that were ready
//! before it, and alone by sendmsg(2) as ever.
//!
//! Knows no HTTP. Errors: none of its own. A kernel that grants no io_uring has no outbox, and then, as for what is too large for one, who
//! sends does that itself.

#![allow(unsafe_code)]

use bytes::Bytes;
use io_uring::{IoUring, opcode, types};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;

/// How many messages go into one call, and how many may wait.
const TOGETHER: usize = 64;
const ROOM: usize = 512;
/// A message of more bytes is its sender's to send: it may not fit into the socket.
const LARGE: usize = 16 << 10;
/// Nothing blocks, and a connection that is gone is an error, not a signal.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

thread_local! {
    static HERE: RefCell<Option<Arc<Outbox>>> = const { RefCell::new(None) };
    static APART: Cell<bool> = const { Cell::new(false) };
}

/// Runs what blocks on this thread with `block`, which leaves its worker's other tasks to another one. What this thread sends from then on
/// goes out at once, since that other thread would have to be woken for it; what that one sends is put here, though it may have been such a
/// thread itself.
pub fn leave<T>(block: impl FnOnce() -> T) -> T {
    let outbox = HERE.with_borrow(Clone::clone);
    if let Some(sender) = outbox.and_then(|outbox| outbox.inner().sender.clone()) {
        sender.wake();
    }
    let done = block();
    APART.set(true);
    done
}

/// One worker's.
pub struct Outbox(Mutex<Inner>);

struct Inner {
    queue: Vec<Item>,
    /// What was the queue before, for its room.
    spare: Vec<Item>,
    /// `None`: it has failed, and messages are sent one by one.
    ring: Option<IoUring>,
    sender: Option<Waker>,
}

struct Item {
    socket: RawFd,
    parts: [Bytes; 2],
    place: Arc<Place>,
    waker: Option<Waker>,
    tells: Tells,
}

/// When who waits for a message is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// Once it has been handed to the kernel.
    Always,
    /// As long as all went well, never: the answer wakes them.
    Trouble,
}

/// What has become of one message after the other.
#[derive(Debug, Default)]
pub struct Place {
    /// Bytes that the kernel has taken.
    taken: AtomicU64,
    /// Where the last one was put, and why it didn't go from there.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outbox: Option<Arc<Outbox>>,
    failed: Option<Errno>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// How many bytes the kernel has taken of all messages; what is in an outbox is not, and counts once it is.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The sender has written so many itself.
    pub fn add(&self, count: u64) {
        self.taken.fetch_add(count, Ordering::AcqRel);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is still in an outbox doesn't go out any more: afterwards [`Place::taken`] is all that ever will have.
    pub fn withdraw(self: &Arc<Self>) {
        let outbox = self.state().outbox.take();
        if let Some(outbox) = outbox {
            // One that is being sent holds the lock until it is.
            outbox
                .inner()
                .queue
                .retain(|item| !Arc::ptr_eq(&item.place, self));
        }
    }

    /// Puts a message into this worker's outbox. `None`: there is none, or it is not for it, and who sends does that itself.
    ///
    /// # Safety
    /// `socket` is open until what is given back is dropped: it is known by its number here.
    pub unsafe fn put(self: &Arc<Self>, socket: &TcpStream, parts: [&Bytes; 2], tells: Tells) -> Option<Put> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if length == 0 || length > LARGE || APART.get() {
            return None;
        }
        let outbox = HERE.with_borrow(Clone::clone)?;
        let mut inner = outbox.inner();
        if inner.queue.len() >= ROOM {
            return None;
        }
        *self.state() = State {
            outbox: Some(Arc::clone(&outbox)),
            failed: None,
        };
        // Before it is there: another thread may send it at once.
        let before = self.taken();
        inner.queue.push(Item {
            socket: socket.as_raw_fd(),
            parts: parts.map(Clone::clone),
            place: Arc::clone(self),
            waker: None,
            tells,
        });
        let first = inner.queue.len() == 1;
        let sender = inner.sender.as_ref().filter(|_| first).cloned();
        drop(inner);
        if let Some(sender) = sender {
            sender.wake();
        }
        Some(Put {
            place: Arc::clone(self),
            outbox,
            before,
        })
    }
}

/// A message in an outbox. Awaited, it gives how many bytes of it the kernel has taken; the rest is its sender's to send, none of them where
/// the socket is full. Dropped, it doesn't go out, if it hasn't.
#[derive(Debug)]
pub struct Put {
    place: Arc<Place>,
    outbox: Arc<Outbox>,
    before: u64,
}

impl Future for Put {
    type Output = io::Result<usize>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut inner = self.outbox.inner();
        let item = inner.queue.iter_mut();
        let mut mine = item.filter(|item| Arc::ptr_eq(&item.place, &self.place));
        if let Some(item) = mine.next() {
            item.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(inner);
        let taken = self.place.taken() - self.before;
        Poll::Ready(match self.place.state().failed.take() {
            None | Some(Errno::AGAIN) => Ok(usize::try_from(taken).unwrap_or(usize::MAX)),
            Some(errno) => Err(errno.into()),
        })
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        self.place.withdraw();
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// One for a worker.
    ///
    /// # Errors
    /// The kernel grants no io_uring: it is before 5.6, or a seccomp profile or `kernel.io_uring_disabled` forbids it.
    pub fn new() -> io::Result<Arc<Self>> {
        let ring = IoUring::new(TOGETHER as u32)?;
        Ok(Arc::new(Self(Mutex::new(Inner {
            queue: Vec::new(),
            spare: Vec::new(),
            ring: Some(ring),
            sender: None,
        }))))
    }

    /// From now on what this thread's tasks put goes here.
    pub fn enter(self: &Arc<Self>) {
        HERE.set(Some(Arc::clone(self)));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is put here, without end: a task of the worker's.
    pub async fn send(self: Arc<Self>) {
        let mut lets_others = true;
        std::future::poll_fn(|context| {
            // This thread has the worker's tasks: it runs this one.
            APART.set(false);
            let mut inner = self.inner();
            if inner
                .sender
                .as_ref()
                .is_none_or(|waker| !waker.will_wake(context.waker()))
            {
                inner.sender = Some(context.waker().clone());
            }
            if inner.queue.is_empty() {
                return Poll::<()>::Pending;
            }
            // Those that are ready by now may have something to send, too: a task that wakes itself comes after them.
            if std::mem::replace(&mut lets_others, false) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            lets_others = true;
            let told = inner.send();
            drop(inner);
            told.into_iter().for_each(Waker::wake);
            Poll::Pending
        })
        .await;
    }
}

impl Inner {
    /// All of it. Gives those that are to be woken.
    fn send(&mut self) -> Vec<Waker> {
        let mut told = Vec::new();
        let mut queue = std::mem::replace(&mut self.queue, std::mem::take(&mut self.spare));
        for items in queue.chunks_mut(TOGETHER) {
            let mut sent = [None; TOGETHER];
            match (&mut self.ring, &*items) {
                (Some(ring), [_, _, ..]) => {
                    if let Err(error) = together(ring, items, &mut sent) {
                        tracing::warn!(%error, "io_uring has failed: messages are sent one by one from now on");
                        self.ring = None;
                    }
                }
                _ => {
                    for (item, sent) in items.iter().zip(&mut sent) {
                        *sent = Some(item.send());
                    }
                }
            }
            told.extend(
                items
                    .iter_mut()
                    .zip(sent)
                    .filter_map(|(item, sent)| item.sent(sent)),
            );
        }
        queue.clear();
        self.spare = queue;
        told
    }
}

impl Item {
    fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.parts[0]), IoSlice::new(&self.parts[1])]
    }

    /// By itself.
    fn send(&self) -> Result<usize, Errno> {
        // SAFETY: who put it here keeps the socket open as long as it is here (`Place::put`).
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        sendmsg(socket, &self.slices(), &mut SendAncillaryBuffer::default(), FLAGS)
    }

    /// Notes what became of it; `None`: nobody knows. Gives whom to wake.
    fn sent(&mut self, sent: Sent) -> Option<Waker> {
        let whole = self.parts.iter().map(Bytes::len).sum::<usize>();
        let mut state = self.place.state();
        state.outbox = None;
        let count = match sent {
            Some(Ok(count)) => count,
            Some(Err(errno)) => {
                state.failed = Some(errno);
                0
            }
            None => {
                // The kernel may read it yet: it stays in memory for good.
                std::mem::forget(self.parts.clone());
                state.failed = Some(Errno::IO);
                1
            }
        };
        drop(state);
        self.place.add(count as u64);
        let quiet = self.tells == Tells::Trouble && count == whole;
        self.waker.take().filter(|_| !quiet)
    }
}

/// What the kernel says of one: how many bytes it has taken.
type Sent = Option<Result<usize, Errno>>;

/// In one call, and says what became of each; on an error of those that nothing is said of nobody knows.
fn together(ring: &mut IoUring, items: &[Item], sent: &mut [Sent; TOGETHER]) -> io::Result<()> {
    let slices: Vec<_> = items.iter().map(Item::slices).collect();
    let messages: Vec<_> = slices.iter().map(message).collect();
    for ((number, item), message) in (0_u64..).zip(items).zip(&messages) {
        let entry = opcode::SendMsg::new(types::Fd(item.socket), message)
            .flags(FLAGS.bits())
            .build()
            .user_data(number);
        // SAFETY: the message and its slices are read when it is submitted, which is before they go below; the bytes they lead to are
        // the items', which outlive this call, and are kept for good where it fails (`Item::sent`). The socket is open as in
        // `Item::send`.
        let pushed = unsafe { ring.submission().push(&entry) };
        pushed.map_err(io::Error::other)?;
    }
    let mut left = items.len();
    while left > 0 {
        // None of them blocks (`MSG_DONTWAIT`), so all have ended when the call returns.
        match ring.submit_and_wait(left) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for entry in ring.completion() {
            let place = usize::try_from(entry.user_data()).ok();
            if let Some(place) = place.and_then(|number| sent.get_mut(number)) {
                *place = Some(match usize::try_from(entry.result()) {
                    Ok(count) => Ok(count),
                    Err(_) => Err(Errno::from_raw_os_error(-entry.result())),
                });
                left -= 1;
            }
        }
    }
    Ok(())
}

/// As sendmsg(2) takes it.
fn message(slices: &[IoSlice<'_>; 2]) -> libc::msghdr {
    // SAFETY: all zeroes are one without an address, parts, control data and flags (recvmsg(2)).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // An `IoSlice` is an `iovec` (its documentation), and the kernel only reads it.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// On a worker, whose tasks have an outbox.
    fn on_a_worker<F: Future<Output = ()> + Send + 'static>(test: F) {
        let outbox = Outbox::new().unwrap();
        let threads = Arc::clone(&outbox);
        let worker = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || threads.enter())
            .build()
            .unwrap();
        worker.spawn(outbox.send());
        worker.block_on(async { tokio::spawn(test).await.unwrap() });
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (here, listener.accept().await.unwrap().0)
    }

    fn put(place: &Arc<Place>, socket: &TcpStream, parts: [&'static str; 2], tells: Tells) -> Option<Put> {
        let parts = parts.map(|part| Bytes::from_static(part.as_bytes()));
        // SAFETY: in each test the socket outlives it.
        unsafe { place.put(socket, [&parts[0], &parts[1]], tells) }
    }

    #[test]
    fn several_go_out_and_each_is_told() {
        on_a_worker(async {
            let mut pairs = Vec::new();
            for _ in 0..TOGETHER + 9 {
                pairs.push(pair().await);
            }
            let places: Vec<_> = pairs.iter().map(|_| Arc::new(Place::default())).collect();
            let all = pairs.iter().zip(&places);
            let waiting =
                all.map(|((here, _), place)| put(place, here, ["head", " and body"], Tells::Always));
            let sent = futures_util::future::join_all(waiting.map(Option::unwrap)).await;
            assert!(sent.iter().all(|sent| *sent.as_ref().unwrap() == 13), "{sent:?}");
            assert!(places.iter().all(|place| place.taken() == 13));
            for (_, there) in &mut pairs {
                let mut got = [0; 13];
                there.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"head and body");
            }
        });
    }

    #[test]
    fn what_is_withdrawn_or_dropped_stays() {
        on_a_worker(async {
            let (here, mut there) = pair().await;
            let place = Arc::new(Place::default());
            drop(put(&place, &here, ["dropped", ""], Tells::Always).unwrap());
            let waiting = put(&place, &here, ["withdrawn", ""], Tells::Always).unwrap();
            place.withdraw();
            assert_eq!(place.taken(), 0);
            assert_eq!(waiting.await.unwrap(), 0, "who waits is told that nothing went");
            assert_eq!(
                put(&place, &here, ["", "sent"], Tells::Always)
                    .unwrap()
                    .await
                    .unwrap(),
                4
            );
            drop(here);
            let mut got = String::new();
            there.read_to_string(&mut got).await.unwrap();
            assert_eq!((got.as_str(), place.taken()), ("sent", 4));
        });
    }

    #[test]
    fn who_leaves_sends_itself_and_whoever_has_the_tasks_then_does_not() {
        on_a_worker(async {
            let (here, _there) = pair().await;
            let place = Arc::new(Place::default());
            let is_taken = || put(&place, &here, ["x", ""], Tells::Always).is_some();
            // More rounds than threads: one that has left before gets the tasks again, without having rested.
            for round in 0..50 {
                leave(|| tokio::task::block_in_place(|| {}));
                assert!(!is_taken(), "round {round}");
                let mut turns = 0;
                while !is_taken() {
                    assert!(turns < 20, "round {round}");
                    turns += 1;
                    tokio::task::yield_now().await;
                }
            }
        });
    }

    #[test]
    fn a_broken_connection_and_a_full_one() {
        on_a_worker(async {
            let ((broken, gone), (full, mut slow)) = (pair().await, pair().await);
            socket2::SockRef::from(&gone)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(gone);
            broken.readable().await.unwrap();
            // Until nothing more fits.
            let mut before = 0;
            full.writable().await.unwrap();
            while let Ok(count) = full.try_write(&[b'x'; 65536]) {
                before += count;
            }
            let places = [Arc::new(Place::default()), Arc::new(Place::default())];
            // Those that wait for trouble alone are woken by it.
            let first = put(&places[0], &broken, ["lost", ""], Tells::Trouble).unwrap();
            let second = put(&places[1], &full, ["late", ""], Tells::Trouble).unwrap();
            let (first, second) = tokio::join!(first, second);
            let kind = first.unwrap_err().kind();
            assert!(
                matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
                "{kind}"
            );
            assert_eq!(second.unwrap(), 0);
            assert_eq!((places[0].taken(), places[1].taken()), (0, 0));
            drop(full);
            let mut got = Vec::new();
            slow.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), before, "nothing of it went out");
        });
    }

    #[test]
    fn what_is_large_or_empty_or_from_elsewhere_is_not_taken() {
        on_a_worker(async {
            let (here, _there) = pair().await;
            let place = Arc::new(Place::default());
            let large = Bytes::from(vec![0; LARGE]);
            let one = Bytes::from_static(b"1");
            // SAFETY: `here` is open to the end.
            assert!(unsafe { place.put(&here, [&one, &large], Tells::Always) }.is_none());
            assert!(put(&place, &here, ["", ""], Tells::Always).is_none());
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (here, _there) = pair().await;
            assert!(put(&Arc::default(), &here, ["x", ""], Tells::Always).is_none());
        });
    }
}
