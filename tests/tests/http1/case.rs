//! What a case is: a name, the section of an RFC that it is about, and what happens, in order.

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// `9112 6.3`: the RFC and its section.
    pub(crate) section: &'static str,
    pub(crate) steps: &'static [Step],
}

/// What happens next on one captured connection. Text is sent and expected byte by byte; `\x..` stands for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The client sends this, and the service sees the same.
    Passes(&'static str),
    /// As `Passes`, of bytes that are no text.
    PassesBytes(&'static [u8]),
    /// The client sends this.
    Sends(&'static str),
    /// As `Sends`, of bytes that are no text.
    SendsBytes(&'static [u8]),
    /// The client sends this many bytes of `a`.
    SendsMany(usize),
    /// The client sends this, so many times.
    SendsTimes(usize, &'static str),
    /// The service sees this next.
    Sees(&'static str),
    /// The service answers with this, and the client gets the same.
    Answers(&'static str),
    /// The service answers with this.
    Says(&'static str),
    /// The client gets this next.
    Gets(&'static str),
    /// A request that passes, and its answer: all is well with the connection.
    GoesOn,
    /// The client gets a saga's reply, with this in its body; the connection stays.
    Saga(&'static str),
    /// As `Saga`, and the reply is the connection's last.
    LastSaga(&'static str),
    /// The client gets an answer of Qbox's own with this status, and then the connection's end.
    Refused(u16),
    /// The service has seen nothing at all of it.
    Unseen,
    /// What the service has seen breaks off with a reset: it holds no whole message.
    BreaksOff,
    /// The client ends its direction, and the service sees it.
    Ends,
    /// The client ends its direction.
    Finishes,
    /// The service ends its direction, and the client sees it.
    Closes,
    /// The client is reset.
    Reset,
    /// The client resets the connection.
    ClientResets,
    /// The service resets its own.
    ServiceResets,
}

/// Lines, each ended by CRLF, an empty line behind them, and what follows as it is.
macro_rules! http {
    ($($line:literal),* ; $body:expr) => { concat!($($line, "\r\n",)* "\r\n", $body) };
    ($($line:literal),*) => { concat!($($line, "\r\n",)* "\r\n") };
}
pub(crate) use http;

/// A POST's fields, and what follows its head as it is.
macro_rules! post {
    ($($line:literal),* ; $body:expr) => {
        http!("POST / HTTP/1.1", "Host: raw.default.svc:8080", $($line),* ; $body)
    };
}
pub(crate) use post;

/// The simplest answer.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The simplest request that passes.
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n";
/// A trigger.
pub(crate) const TRIGGER: &str =
    "POST /take/1 HTTP/1.1\r\nHost: raw.default.svc:8080\r\nContent-Length: 9\r\n\r\n{\"a\":\"x\"}";
