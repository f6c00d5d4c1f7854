//! Messages' lines: request line, versions, targets, fields (RFC 9112, 2 to 5).

use crate::case::Step::*;
use crate::case::{Case, OK, http, post};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "empty-lines-before",
        section: "9112 2.2",
        steps: &[
            Passes("\r\nGET / HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n"),
            Answers(OK),
            Passes("\r\n\r\nGET / HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n"),
            Answers(OK),
        ],
    },
    Case {
        name: "bare-lf",
        section: "9112 2.2",
        steps: &[Sends("GET / HTTP/1.1\nHost: raw.default.svc:8080\n\n"), Refused(400), Unseen],
    },
    Case {
        name: "bare-lf-in-head",
        section: "9112 2.2",
        steps: &[Sends(post!("X: a\nTransfer-Encoding: chunked", "Content-Length: 5"; "hello")), Refused(400), Unseen],
    },
    Case {
        name: "bare-cr",
        section: "9112 2.2",
        steps: &[Sends(post!("X: a\rContent-Length: 5"; "")), Refused(400), Unseen],
    },
    Case {
        name: "space-before-first-field",
        section: "9112 2.2",
        steps: &[Sends(http!("GET / HTTP/1.1", " Host: raw.default.svc:8080")), Refused(400), Unseen],
    },
    Case {
        name: "not-http",
        section: "9112 2.2",
        steps: &[
            PassesBytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            Answers("binary\r\n\r\n\n"),
            Passes("POST /take/1 HTTP/1.1\r\n\r\n"),
            Ends,
            Answers("last"),
            Closes,
        ],
    },
    Case {
        name: "http-0.9",
        section: "9112 2.3",
        steps: &[Passes("GET /\r\n"), Answers("<html>"), Closes],
    },
    Case {
        name: "http-1.2",
        section: "9110 2.5",
        steps: &[Passes("GET / HTTP/1.2\r\nHost: raw.default.svc:8080\r\n\r\n"), Answers(OK)],
    },
    Case {
        name: "version-changes",
        section: "9110 2.5",
        steps: &[GoesOn, Sends(http!("GET / HTTP/2.0", "Host: raw.default.svc:8080")), Refused(400)],
    },
    Case {
        name: "two-spaces",
        section: "9112 3",
        steps: &[Sends(http!("GET  / HTTP/1.1", "Host: raw.default.svc:8080")), Refused(400), Unseen],
    },
    Case {
        name: "space-in-target",
        section: "9112 3",
        steps: &[Sends(http!("GET /a b HTTP/1.1", "Host: raw.default.svc:8080")), Refused(400), Unseen],
    },
    Case {
        name: "long-target",
        section: "9112 3",
        steps: &[
            GoesOn,
            Sends("GET /"),
            SendsMany(70_000),
            Sends(" HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n"),
            Refused(414),
        ],
    },
    Case {
        name: "unknown-method",
        section: "9112 3.1",
        steps: &[Passes(http!("X-M.y~1 / HTTP/1.1", "Host: raw.default.svc:8080")), Answers(OK), GoesOn],
    },
    Case {
        name: "method-has-case",
        section: "9112 3.1",
        steps: &[Passes(http!("post /take/1 HTTP/1.1", "Host: raw.default.svc:8080")), Answers(OK)],
    },
    Case {
        name: "target-in-utf-8",
        section: "9112 3.2",
        steps: &[Passes(http!("GET /\u{e9}?\u{20ac} HTTP/1.1", "Host: raw.default.svc:8080")), Answers(OK), GoesOn],
    },
    Case {
        name: "target-in-no-charset",
        section: "9112 3.2",
        steps: &[
            SendsBytes(b"GET /\xe9 HTTP/1.1\r\nHost: raw.default.svc:8080\r\n\r\n"),
            Refused(400),
            Unseen,
        ],
    },
    Case {
        name: "no-host",
        section: "9112 3.2",
        steps: &[
            Passes(http!("POST /take/1 HTTP/1.1", "Content-Length: 0")),
            Answers(http!("HTTP/1.1 400 Bad Request", "Content-Length: 0")),
        ],
    },
    Case {
        name: "host-twice",
        section: "9112 3.2",
        steps: &[
            Sends(http!("GET / HTTP/1.1", "Host: raw.default.svc:8080", "Host: raw.default.svc:8080")),
            Refused(400),
            Unseen,
        ],
    },
    Case {
        name: "host-of-others",
        section: "9112 3.2",
        steps: &[Passes(http!("POST /take/1 HTTP/1.1", "Host: a b", "Content-Length: 0")), Answers(OK), GoesOn],
    },
    Case {
        name: "fragment-passes",
        section: "9112 3.2",
        steps: &[Passes(http!("GET /a#b HTTP/1.1", "Host: raw.default.svc:8080")), Answers(OK), GoesOn],
    },
    Case {
        name: "fragment-of-a-trigger",
        section: "9112 3.2",
        steps: &[
            Sends(http!("POST /take/1#2 HTTP/1.1", "Host: raw.default.svc:8080", "Content-Length: 9"; "{\"a\":\"x\"}")),
            Saga("x"),
            GoesOn,
        ],
    },
    Case {
        name: "absolute-form",
        section: "9112 3.2.2",
        steps: &[
            Passes(http!("GET http://raw.default.svc:8080/a HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "absolute-form-of-a-trigger",
        section: "9112 3.2.2",
        steps: &[
            Sends(http!("POST http://raw.default.svc:8080/take/1 HTTP/1.1", "Host: other", "Content-Length: 9"; "{\"a\":\"x\"}")),
            Saga("x"),
            GoesOn,
        ],
    },
    Case {
        name: "absolute-form-elsewhere",
        section: "9112 3.2.2",
        steps: &[
            Passes(http!("POST http://other/take/1 HTTP/1.1", "Host: raw.default.svc:8080", "Content-Length: 0")),
            Answers(OK),
        ],
    },
    Case {
        name: "authority-form",
        section: "9112 3.2.3",
        steps: &[
            Passes(http!("CONNECT other:443 HTTP/1.1", "Host: other:443")),
            Answers(http!("HTTP/1.1 405 No", "Content-Length: 0")),
            GoesOn,
        ],
    },
    Case {
        name: "asterisk-form",
        section: "9112 3.2.4",
        steps: &[
            Passes(http!("OPTIONS * HTTP/1.1", "Host: raw.default.svc:8080", "Max-Forwards: 0")),
            Answers(OK),
            GoesOn,
        ],
    },
    Case {
        name: "status-line-as-it-is",
        section: "9112 4",
        steps: &[
            Passes(http!("GET / HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers("HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n"),
            Passes(http!("GET / HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers("HTTP/1.1 200 Tr\u{e8}s  bien\r\nContent-Length: 0\r\n\r\n"),
            GoesOn,
        ],
    },
    Case {
        name: "fields-as-they-are",
        section: "9112 5",
        steps: &[
            PassesBytes(
                b"GET / HTTP/1.1\r\nhOST:raw.default.svc:8080\r\nX-b: 1 \r\nx-B:\t2\r\nX-Empty:\r\nX-b: \xe9\x80\r\n\r\n",
            ),
            Answers("HTTP/1.1 200 OK\r\nsEt-Cookie: a=b\r\nSet-Cookie:  c=d \r\nVary:\r\ncontent-LENGTH: 2\r\n\r\nok"),
            GoesOn,
        ],
    },
    Case {
        name: "hop-by-hop-fields",
        section: "9110 7.6.1",
        steps: &[
            Passes(http!(
                "GET / HTTP/1.1", "Host: raw.default.svc:8080", "Connection: X-Own, keep-alive", "X-Own: 1",
                "Keep-Alive: timeout=5", "TE: trailers", "Proxy-Connection: keep-alive", "Max-Forwards: 0"
            )),
            Answers(http!("HTTP/1.1 200 OK", "Connection: X-Own", "X-Own: 2", "Keep-Alive: max=3", "Content-Length: 0")),
            GoesOn,
        ],
    },
    Case {
        name: "space-before-colon",
        section: "9112 5.1",
        steps: &[Sends(post!("Content-Length : 5"; "hello")), Refused(400), Unseen],
    },
    Case {
        name: "space-in-name",
        section: "9112 5.1",
        steps: &[Sends(post!("Content Length: 5"; "hello")), Refused(400), Unseen],
    },
    Case {
        name: "no-name",
        section: "9112 5.1",
        steps: &[Sends(post!(": a"; "")), Refused(400), Unseen],
    },
    Case {
        name: "no-colon",
        section: "9112 5.1",
        steps: &[Sends(post!("Content-Length"; "")), Refused(400), Unseen],
    },
    Case {
        name: "folded-request",
        section: "9112 5.2",
        steps: &[Sends(post!("X: a", " Content-Length: 5"; "hello")), Refused(400), Unseen],
    },
    Case {
        name: "folded-response",
        section: "9112 5.2",
        steps: &[
            Passes(http!("GET / HTTP/1.1", "Host: raw.default.svc:8080")),
            Answers("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
            Sends(crate::case::TRIGGER),
            Saga("x"),
        ],
    },
    Case {
        name: "control-in-value",
        section: "9110 5.5",
        steps: &[Sends(post!("X: a\0b"; "")), Refused(400), Unseen],
    },
    Case {
        name: "many-fields",
        section: "9110 5.4",
        steps: &[
            Sends("GET / HTTP/1.1\r\nHost: raw.default.svc:8080\r\n"),
            SendsTimes(200, "a: b\r\n"),
            Sends("\r\n"),
            Refused(431),
            Unseen,
        ],
    },
    Case {
        name: "long-head",
        section: "9110 5.4",
        steps: &[
            Sends("GET / HTTP/1.1\r\nHost: raw.default.svc:8080\r\nX: "),
            SendsMany(70_000),
            Sends("\r\n\r\n"),
            Refused(431),
            Unseen,
        ],
    },
];
