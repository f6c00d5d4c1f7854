//! Where a message ends: Transfer-Encoding, Content-Length, chunks (RFC 9112, 6 to 8), and what smuggles requests.

use crate::case::Step::*;
use crate::case::{Case, GET, OK, TRIGGER, http, post};

/// A chunked POST, with these bytes as its body.
macro_rules! chunked {
    ($body:expr) => {
        post!("Transfer-Encoding: chunked"; $body)
    };
}

/// A case whose request is refused with 400, before the service sees a byte.
macro_rules! refused {
    ($name:literal, $section:literal, $request:expr) => {
        Case {
            name: $name,
            section: $section,
            steps: &[Sends($request), Refused(400), Unseen],
        }
    };
}

/// A case whose body is found wrong when the head may have passed: the service is reset, the client gets a 400.
macro_rules! broken {
    ($name:literal, $section:literal, $body:expr) => {
        Case {
            name: $name,
            section: $section,
            steps: &[Sends(chunked!($body)), Refused(400), BreaksOff],
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    // Both, and which codings there may be.
    refused!(
        "cl-te",
        "9112 6.1",
        post!("Content-Length: 6", "Transfer-Encoding: chunked"; "0\r\n\r\nG")
    ),
    refused!(
        "te-cl",
        "9112 6.1",
        post!("Transfer-Encoding: chunked", "Content-Length: 3"; "1\r\na\r\n0\r\n\r\n")
    ),
    refused!(
        "te-te",
        "9112 6.1",
        post!("Transfer-Encoding: chunked", "Transfer-Encoding: x"; "0\r\n\r\n")
    ),
    refused!(
        "te-twice",
        "9112 6.1",
        post!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"; "0\r\n\r\n")
    ),
    refused!(
        "te-chunked-not-last",
        "9112 6.3",
        post!("Transfer-Encoding: chunked, gzip"; "0\r\n\r\n")
    ),
    refused!(
        "te-not-chunked",
        "9112 6.3",
        post!("Transfer-Encoding: gzip"; "0\r\n\r\n")
    ),
    refused!(
        "te-identity",
        "9112 7",
        post!("Transfer-Encoding: identity", "Content-Length: 5"; "hello")
    ),
    refused!(
        "te-like-chunked",
        "9112 7",
        post!("Transfer-Encoding: xchunked"; "0\r\n\r\n")
    ),
    refused!(
        "te-quoted",
        "9112 7",
        post!("Transfer-Encoding: \"chunked\""; "0\r\n\r\n")
    ),
    refused!(
        "te-parameter",
        "9112 7",
        post!("Transfer-Encoding: chunked;a=b"; "0\r\n\r\n")
    ),
    refused!(
        "te-vertical-tab",
        "9112 7",
        post!("Transfer-Encoding: \x0bchunked"; "0\r\n\r\n")
    ),
    refused!("te-empty", "9112 7", post!("Transfer-Encoding:"; "0\r\n\r\n")),
    refused!(
        "te-empty-item",
        "9112 7",
        post!("Transfer-Encoding: , chunked"; "0\r\n\r\n")
    ),
    refused!(
        "te-in-http-1.0",
        "9112 6.1",
        http!("POST / HTTP/1.0", "Host: raw.default.svc:8080", "Transfer-Encoding: chunked"; "0\r\n\r\n")
    ),
    Case {
        name: "te-case-and-space",
        section: "9112 7",
        steps: &[
            Passes(post!("tRANSFER-eNCODING: \tChunKED "; "1\r\na\r\n0\r\n\r\n")),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "te-gzip-chunked",
        section: "9112 6.1",
        steps: &[
            Passes(post!("Transfer-Encoding: gzip, chunked"; "1\r\na\r\n0\r\n\r\n")),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "te-gzip-chunked-trigger",
        section: "9112 6.1",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Transfer-Encoding: gzip, chunked";
                "1\r\na\r\n0\r\n\r\n"
            )),
            Refused(501),
            Unseen,
        ],
    },
    // Lengths.
    Case {
        name: "cl",
        section: "9112 6.2",
        steps: &[
            Passes(post!("Content-Length: 005"; "GET /")),
            Answers(OK),
            Passes(post!("Content-Length: 0"; "")),
            Answers(OK),
            Passes(http!("GET / HTTP/1.1", "Host: raw.default.svc:8080", "Content-Length: 3"; "get")),
            Answers(OK),
            GoesOn,
        ],
    },
    refused!(
        "cl-twice-different",
        "9112 6.3",
        post!("Content-Length: 5", "Content-Length: 6"; "hello!")
    ),
    refused!(
        "cl-list-different",
        "9112 6.3",
        post!("Content-Length: 5, 6"; "hello!")
    ),
    refused!(
        "cl-twice-same",
        "9110 8.6",
        post!("Content-Length: 5", "Content-Length: 5"; "hello")
    ),
    refused!("cl-list-same", "9110 8.6", post!("Content-Length: 5, 5"; "hello")),
    refused!("cl-plus", "9110 8.6", post!("Content-Length: +5"; "hello")),
    refused!("cl-minus", "9110 8.6", post!("Content-Length: -5"; "hello")),
    refused!("cl-hex", "9110 8.6", post!("Content-Length: 0x5"; "hello")),
    refused!("cl-spaced", "9110 8.6", post!("Content-Length: 5 0"; "hello")),
    refused!("cl-empty", "9110 8.6", post!("Content-Length: "; "")),
    refused!("cl-fraction", "9110 8.6", post!("Content-Length: 5.0"; "hello")),
    refused!(
        "cl-huge",
        "9110 8.6",
        post!("Content-Length: 99999999999999999999"; "hello")
    ),
    Case {
        name: "neither",
        section: "9112 6.3",
        steps: &[
            Passes("POST / HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n"),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "trigger-in-a-body",
        section: "9112 6.3",
        steps: &[
            Passes(
                post!("Content-Length: 81"; "POST /take/1 HTTP/1.1\r\nHost: raw.default.svc:8080\r\nContent-Length: 9\r\n\r\n{\"a\":\"x\"}"),
            ),
            Answers(OK),
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    // Bodies of responses.
    Case {
        name: "head-answered",
        section: "9112 6.3",
        steps: &[
            Passes(http!("HEAD / HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers(http!("HTTP/1.1 200 OK", "Content-Length: 1000")),
            Passes(http!("HEAD / HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers(http!("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")),
            GoesOn,
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "no-content",
        section: "9112 6.3",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 204 No Content")),
            Passes(GET),
            Answers(http!("HTTP/1.1 304 Not Modified", "Content-Length: 1000")),
            Passes(GET),
            Answers(http!("HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked")),
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "until-close",
        section: "9112 6.3",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 200 OK"; "as long")),
            Answers(" as it takes"),
            Closes,
        ],
    },
    Case {
        name: "response-not-chunked-last",
        section: "9112 6.3",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 200 OK", "Transfer-Encoding: gzip"; "HTTP/1.1 200 OK\r\n\r\n")),
            Closes,
        ],
    },
    Case {
        name: "response-te-cl",
        section: "9112 6.3",
        steps: &[
            Passes(GET),
            Answers(
                http!("HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked"; "1\r\na\r\n0\r\n\r\n"),
            ),
            GoesOn,
            Sends(TRIGGER),
            Reset,
        ],
    },
    Case {
        name: "response-cl-same",
        section: "9110 8.6",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 200 OK", "Content-Length: 2, 2", "Content-Length: 2"; "ok")),
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "response-unreadable",
        section: "9112 6.3",
        steps: &[
            Passes(GET),
            Answers("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
            GoesOn,
            Sends(TRIGGER),
            Reset,
        ],
    },
    Case {
        name: "response-unasked",
        section: "9112 6.3",
        steps: &[
            GoesOn,
            Answers(http!(
                "HTTP/1.1 408 Late",
                "Content-Length: 0",
                "Connection: close"
            )),
            Closes,
        ],
    },
    // Chunks.
    Case {
        name: "chunks-as-they-are",
        section: "9112 7.1",
        steps: &[
            Passes(chunked!(
                "05\r\nhello\r\n0A\r\n0123456789\r\nb\r\nGET / HTTP/\r\n000\r\n\r\n"
            )),
            Answers(http!("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"; "2\r\nok\r\n0\r\n\r\n")),
            GoesOn,
        ],
    },
    Case {
        name: "chunks-of-a-trigger",
        section: "9112 7.1.3",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Transfer-Encoding: chunked";
                "4;e=f\r\n{\"a\"\r\n5\r\n:\"y\"}\r\n0\r\nX-Sum: 1\r\n\r\n"
            )),
            Saga("y"),
            GoesOn,
        ],
    },
    Case {
        name: "chunk-extensions",
        section: "9112 7.1.1",
        steps: &[
            Passes(chunked!(
                "5;a;b=c;d=\"e f\"\r\nhello\r\n1 ; x\r\na\r\n1 \t\r\nb\r\n0;last\r\n\r\n"
            )),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "trailers",
        section: "9112 7.1.2",
        steps: &[
            Passes(post!(
                "Trailer: X-Sum", "Transfer-Encoding: chunked";
                "1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nx-sum:\r\n\r\n"
            )),
            Answers(
                http!("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"; "0\r\nT: 1\r\nConnection: close\r\n\r\n"),
            ),
            GoesOn,
            Sends(TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "trigger-in-a-chunk",
        section: "9112 7.1",
        steps: &[
            Passes(chunked!(
                "51\r\nPOST /take/1 HTTP/1.1\r\nHost: raw.default.svc:8080\r\nContent-Length: 9\r\n\r\n{\"a\":\"x\"}\r\n0\r\n\r\n"
            )),
            Answers(OK),
        ],
    },
    broken!("chunk-no-size", "9112 7.1", "\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-size-prefix", "9112 7.1", "0x5\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-size-sign", "9112 7.1", "+5\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-size-led-by-space", "9112 7.1", " 5\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-size-then-junk", "9112 7.1", "5 x\r\nhello\r\n0\r\n\r\n"),
    broken!(
        "chunk-size-huge",
        "9112 7.1",
        "10000000000000005\r\nhello\r\n0\r\n\r\n"
    ),
    broken!("chunk-size-lf", "9112 7.1", "5\nhello\r\n0\r\n\r\n"),
    broken!("chunk-extension-lf", "9112 7.1.1", "5;a\nhello\r\n0\r\n\r\n"),
    broken!("chunk-extension-cr", "9112 7.1.1", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-too-long", "9112 7.1", "5\r\nhello!\r\n0\r\n\r\n"),
    broken!("chunk-too-short", "9112 7.1", "6\r\nhello\r\n0\r\n\r\n"),
    broken!("chunk-data-lf", "9112 7.1", "5\r\nhello\n0\r\n\r\n"),
    broken!("trailer-folded", "9112 7.1.2", "0\r\nX: a\r\n b\r\n\r\n"),
    broken!("trailer-space-before-colon", "9112 7.1.2", "0\r\nX : a\r\n\r\n"),
    broken!("trailer-lf", "9112 7.1.2", "0\r\nX: a\n\r\n"),
    broken!("last-chunk-lf", "9112 7.1", "0\n\n"),
    Case {
        name: "chunk-broken-in-a-trigger",
        section: "9112 7.1",
        steps: &[
            Sends(http!(
                "POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Transfer-Encoding: chunked";
                "5\r\nhello!\r\n0\r\n\r\n"
            )),
            Refused(400),
            Unseen,
        ],
    },
    // Incomplete messages.
    Case {
        name: "request-cut-short",
        section: "9112 8",
        steps: &[Passes(post!("Content-Length: 10"; "half")), Ends],
    },
    Case {
        name: "trigger-cut-short",
        section: "9112 8",
        steps: &[
            Sends(http!("POST /take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Content-Length: 10"; "half")),
            Finishes,
            Unseen,
        ],
    },
    Case {
        name: "response-cut-short",
        section: "9112 8",
        steps: &[
            Passes(GET),
            Answers(http!("HTTP/1.1 200 OK", "Content-Length: 10"; "half")),
            Closes,
        ],
    },
];
