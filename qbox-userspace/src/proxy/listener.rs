//! Who hears what a request that passed was answered. It hears once, on the connection's own task, whatever becomes of the
//! connection; it changes nothing of what passes.

use std::fmt;

/// What a service answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// With this status; interim answers are none.
    Status(u16),
    /// With a status that could not be read: see [`Handler::listens`](super::Handler::listens).
    Unreadable,
    /// Not at all, or nothing that begins as an answer.
    Nothing,
}

/// Hears it. Dropped before, it hears [`Heard::Nothing`].
pub struct Listener(Option<Box<dyn FnOnce(Heard) + Send>>);

impl Listener {
    /// `hear` must be quick and may not block: the connection waits for it.
    pub fn new(hear: impl FnOnce(Heard) + Send + 'static) -> Self {
        Self(Some(Box::new(hear)))
    }

    /// This is the answer.
    pub(super) fn hear(mut self, heard: Heard) {
        self.tell(heard);
    }

    fn tell(&mut self, heard: Heard) {
        if let Some(hear) = self.0.take() {
            hear(heard);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tell(Heard::Nothing);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
