//! Requests and responses on one connection: order, interim responses, expectations, upgrades, tunnels, ends (RFC 9112, 9;
//! RFC 9110, 7.8, 9.3.6, 10.1.1, 15.2).

use crate::case::Step::*;
use crate::case::{Case, GET, OK, TRIGGER, http, post};

/// Asks to leave HTTP/1.
const UPGRADE: &str = http!(
    "GET / HTTP/1.1",
    "Host: raw.default.svc:8080",
    "Connection: Upgrade",
    "Upgrade: x"
);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "keep-alive",
        section: "9112 9.3",
        steps: &[
            GoesOn,
            Sends(TRIGGER),
            Saga("x"),
            GoesOn,
            GoesOn,
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "http-1.0",
        section: "9112 9.3",
        steps: &[
            Passes(http!("GET / HTTP/1.0")),
            Answers("HTTP/1.0 200 OK\r\n\r\nbody"),
            Closes,
        ],
    },
    Case {
        name: "http-1.0-keep-alive",
        section: "9112 9.3",
        steps: &[
            Passes(http!("GET / HTTP/1.0", "Connection: Keep-Alive")),
            Answers(http!("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 2"; "ok")),
            Passes(http!("GET / HTTP/1.0", "Connection: Keep-Alive")),
            Answers(http!("HTTP/1.0 200 OK", "Content-Length: 2"; "ok")),
            Closes,
        ],
    },
    Case {
        name: "http-1.0-trigger",
        section: "9112 9.3",
        steps: &[
            Sends(
                http!("POST /take/1 HTTP/1.0", "Host: raw.default.svc:8080", "Content-Length: 9"; "{\"a\":\"x\"}"),
            ),
            LastSaga("x"),
        ],
    },
    Case {
        name: "pipelining",
        section: "9112 9.3.2",
        steps: &[
            Sends(
                "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            Sees(
                "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            Says(http!("HTTP/1.1 200 OK", "Content-Length: 2"; "ok")),
            Says(http!("HTTP/1.1 200 OK", "Content-Length: 9")),
            Says(http!("HTTP/1.1 204 No Content")),
            Gets(http!("HTTP/1.1 200 OK", "Content-Length: 2"; "ok")),
            Gets(http!("HTTP/1.1 200 OK", "Content-Length: 9")),
            Gets(http!("HTTP/1.1 204 No Content")),
            GoesOn,
        ],
    },
    Case {
        name: "pipelined-trigger",
        section: "9112 9.3.2",
        steps: &[
            Sends(GET),
            Sends(TRIGGER),
            Sends(GET),
            Sees(GET),
            Answers(OK),
            Saga("x"),
            Sees(GET),
            Answers(OK),
        ],
    },
    Case {
        name: "pipelined-malformed",
        section: "9112 9.3.2",
        steps: &[
            Sends(GET),
            Sends(post!("Content-Length: x"; "hello")),
            Sees(GET),
            Answers(OK),
            Refused(400),
        ],
    },
    Case {
        name: "half-closed",
        section: "9112 9.6",
        steps: &[Passes(GET), Ends, Answers(OK), Closes],
    },
    Case {
        name: "half-closed-trigger",
        section: "9112 9.6",
        steps: &[Sends(TRIGGER), Finishes, Saga("x")],
    },
    Case {
        name: "close-asked",
        section: "9112 9.6",
        steps: &[
            Passes(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: close"
            )),
            Answers(http!("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2"; "ok")),
            Closes,
        ],
    },
    Case {
        name: "close-asked-of-a-trigger",
        section: "9112 9.6",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Connection: X, Close", "Content-Length: 9";
                "{\"a\":\"x\"}"
            )),
            LastSaga("x"),
        ],
    },
    Case {
        name: "trigger-behind-close",
        section: "9112 9.6",
        steps: &[
            Sends(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: close"
            )),
            Sends(TRIGGER),
            Sees(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: close"
            )),
            Answers(OK),
            Closes,
        ],
    },
    Case {
        name: "close-answered",
        section: "9112 9.6",
        steps: &[
            Sends(GET),
            Sends(TRIGGER),
            Sees(GET),
            Answers(http!("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2"; "ok")),
            Closes,
        ],
    },
    Case {
        name: "idle-service-ends",
        section: "9112 9.5",
        steps: &[GoesOn, Sends(TRIGGER), Saga("x"), GoesOn, Closes, Ends],
    },
    Case {
        name: "idle-client-ends",
        section: "9112 9.5",
        steps: &[GoesOn, Sends(TRIGGER), Saga("x"), GoesOn, Ends, Closes],
    },
    Case {
        name: "reset-by-client",
        section: "9112 9.6",
        steps: &[
            Passes(post!("Content-Length: 9"; "half")),
            ClientResets,
            BreaksOff,
        ],
    },
    Case {
        name: "reset-by-service",
        section: "9112 9.6",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 200 OK", "Content-Length: 9"; "half")),
            ServiceResets,
            Reset,
        ],
    },
    Case {
        name: "reset-idle-by-client",
        section: "9112 9.6",
        steps: &[GoesOn, ClientResets, BreaksOff],
    },
    Case {
        name: "reset-idle-by-service",
        section: "9112 9.6",
        steps: &[GoesOn, ServiceResets, Reset],
    },
    Case {
        name: "reset-copied-by-client",
        section: "9112 9.6",
        steps: &[
            PassesBytes(b"\x16\x03\x01"),
            Answers("binary"),
            ClientResets,
            BreaksOff,
        ],
    },
    Case {
        name: "reset-copied-by-service",
        section: "9112 9.6",
        steps: &[
            PassesBytes(b"\x16\x03\x01"),
            Answers("binary"),
            ServiceResets,
            Reset,
        ],
    },
    Case {
        name: "reset-tunnel-by-client",
        section: "9112 9.6",
        steps: &[
            Passes(UPGRADE),
            Answers(http!("HTTP/1.1 101 Yes")),
            Passes("\x02"),
            ClientResets,
            BreaksOff,
        ],
    },
    Case {
        name: "reset-tunnel-by-service",
        section: "9112 9.6",
        steps: &[
            Passes(UPGRADE),
            Answers(http!("HTTP/1.1 101 Yes")),
            Passes("\x02"),
            ServiceResets,
            Reset,
        ],
    },
    Case {
        name: "reset-before-an-answer",
        section: "9112 9.6",
        steps: &[Passes(UPGRADE), ClientResets, BreaksOff],
    },
    Case {
        name: "reset-before-a-trigger",
        section: "9112 9.6",
        steps: &[Sends(GET), Sends(TRIGGER), Sees(GET), ClientResets, BreaksOff],
    },
    Case {
        name: "service-ends-first",
        section: "9112 9.6",
        steps: &[PassesBytes(b"\x16\x03\x01"), Closes, Passes("more\nof it"), Ends],
    },
    Case {
        name: "early-response",
        section: "9112 9.5",
        steps: &[
            Passes(post!("Content-Length: 100000"; "a little")),
            Answers(http!(
                "HTTP/1.1 413 Too Long",
                "Connection: close",
                "Content-Length: 0"
            )),
            Closes,
        ],
    },
    Case {
        name: "interim-responses",
        section: "9110 15.2",
        steps: &[
            Passes(GET),
            Answers(http!(
                "HTTP/1.1 103 Early Hints",
                "Link: </a>",
                "Content-Length: 5"
            )),
            Answers(http!("HTTP/1.1 102 Processing")),
            Answers(http!("HTTP/1.1 199 New")),
            Answers(OK),
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "expect-continue",
        section: "9110 10.1.1",
        steps: &[
            Passes(post!("Expect: 100-continue", "Content-Length: 4"; "")),
            Answers(http!("HTTP/1.1 100 Go on")),
            Passes("body"),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "expect-refused",
        section: "9110 10.1.1",
        steps: &[
            Passes(post!("Expect: 100-continue", "Content-Length: 4"; "")),
            Answers(http!("HTTP/1.1 417 No", "Content-Length: 0", "Connection: close")),
            Closes,
        ],
    },
    Case {
        name: "expect-of-a-trigger",
        section: "9110 10.1.1",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Expect: 100-continue",
                "Content-Length: 9"
            )),
            Gets("HTTP/1.1 100 Continue\r\n\r\n"),
            Sends("{\"a\":\"x\"}"),
            Saga("x"),
        ],
    },
    Case {
        name: "expect-other",
        section: "9110 10.1.1",
        steps: &[
            Passes(post!("Expect: a-miracle", "Content-Length: 1"; "a")),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "upgrade",
        section: "9110 7.8",
        steps: &[
            Passes(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: Upgrade",
                "Upgrade: x"
            )),
            Answers(
                http!("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: x"; "\x01first"),
            ),
            Passes(TRIGGER),
            Ends,
            Answers("last"),
            Closes,
        ],
    },
    Case {
        name: "upgrade-refused",
        section: "9110 7.8",
        steps: &[
            Sends(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: Upgrade",
                "Upgrade: h2c"
            )),
            Sends(TRIGGER),
            Sees(http!(
                "GET / HTTP/1.1",
                "Host: raw.default.svc:8080",
                "Connection: Upgrade",
                "Upgrade: h2c"
            )),
            Answers(OK),
            Saga("x"),
            GoesOn,
        ],
    },
    Case {
        name: "upgrade-with-a-body",
        section: "9110 7.8",
        steps: &[
            Passes(post!("Connection: Upgrade", "Upgrade: x", "Content-Length: 4"; "body")),
            Answers(http!("HTTP/1.1 101 Switching Protocols")),
            Passes("\x02"),
        ],
    },
    Case {
        name: "upgrade-of-a-trigger",
        section: "9110 7.8",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Connection: Upgrade", "Upgrade: x",
                "Content-Length: 9"; "{\"a\":\"x\"}"
            )),
            Saga("x"),
            GoesOn,
        ],
    },
    Case {
        name: "tunnel",
        section: "9110 9.3.6",
        steps: &[
            Passes(http!("CONNECT other:443 HTTP/1.1", "Host: other:443")),
            Answers(http!(
                "HTTP/1.1 200 OK",
                "Content-Length: 5",
                "Transfer-Encoding: chunked"
            )),
            PassesBytes(b"\x16\x03\x01"),
            Passes(TRIGGER),
            Answers("any\nbytes"),
        ],
    },
    Case {
        name: "tunnel-refused",
        section: "9110 9.3.6",
        steps: &[
            Sends(http!(
                "CONNECT other:443 HTTP/1.1",
                "Host: other:443",
                "Content-Length: 0"
            )),
            Sends(TRIGGER),
            Sees(http!(
                "CONNECT other:443 HTTP/1.1",
                "Host: other:443",
                "Content-Length: 0"
            )),
            Answers(http!("HTTP/1.1 407 No", "Content-Length: 2"; "no")),
            Saga("x"),
        ],
    },
    Case {
        name: "connect-with-a-body",
        section: "9110 9.3.6",
        steps: &[
            Sends(http!("CONNECT other:443 HTTP/1.1", "Host: other:443", "Content-Length: 5"; "hello")),
            Refused(400),
            Unseen,
        ],
    },
];
