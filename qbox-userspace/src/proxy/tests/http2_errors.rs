//! Frames that make no sense, byte by byte (RFC 9113): what is answered, and that the service does not see it.

use super::*;

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// `GET http://trips/x`, with nothing in a table.
const GET: &[u8] = b"\x82\x86\x04\x02/x\x01\x05trips";

/// HEADERS that end, if `end`, the request.
fn headers(stream: u32, end: bool, more: &[u8]) -> Vec<u8> {
    frame(1, 4 | u8::from(end), stream, &[GET, more].concat())
}

struct Frames {
    rig: Rig,
    client: Peer,
    service: Peer,
}

impl Frames {
    /// Both ends have said hello.
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let rig = Rig::with(settings).await;
        let (mut client, mut service) = rig.pair().await;
        client.send([PREFACE, SETTINGS].concat()).await;
        service.expect([PREFACE, SETTINGS].concat()).await;
        service.send(SETTINGS).await;
        let (head, _) = next(&mut client).await;
        assert_eq!(head, (4, 0, 0));
        Self { rig, client, service }
    }
}

/// The next frame: type, flags and stream; and its payload.
async fn next(peer: &mut Peer) -> ((u8, u8, u32), Vec<u8>) {
    let mut head = [0; 9];
    timeout(PATIENCE, peer.stream.read_exact(&mut head))
        .await
        .expect("no frame comes")
        .expect("no frame comes any more");
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; len];
    timeout(PATIENCE, peer.stream.read_exact(&mut payload))
        .await
        .unwrap()
        .unwrap();
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    ((head[3], head[4], stream), payload)
}

/// GOAWAY with this code, and nothing of it at the service but its end.
async fn refused(frames: &[u8], code: u32) {
    let mut ends = Frames::new().await;
    ends.client.send(frames).await;
    let (head, payload) = loop {
        let frame = next(&mut ends.client).await;
        if frame.0.0 != 3 {
            break frame;
        }
    };
    assert_eq!(head, (7, 0, 0), "{frames:?}");
    assert_eq!(payload[4..8], code.to_be_bytes(), "{frames:?}");
    assert!(ends.client.rest_bytes().await.is_empty());
    let mut left = Vec::new();
    let end = timeout(PATIENCE, ends.service.stream.read_to_end(&mut left))
        .await
        .unwrap();
    assert!(end.is_err(), "the service is reset: {left:?}");
}

#[tokio::test]
async fn errors_of_the_connection() {
    let open = headers(1, false, b"");
    let long = frame(0, 0, 1, &[0; 40_000]);
    for (frames, code) in [
        (frame(0, 0, 0, b"x"), 1),                                 // 6.1: DATA on no stream
        (frame(0, 0, 1, b"x"), 1),                                 // 5.1: DATA on an idle stream
        (frame(0, 0, 2, b"x"), 1),                                 // 5.1.1: a server's stream
        ([&open[..], &frame(0, 8, 1, b"\x05x")].concat(), 1),      // 6.1: padding only
        ([&open[..], &long].concat(), 6),                          // 4.2: longer than agreed
        (headers(2, true, b""), 1),                                // 5.1.1
        (frame(1, 4, 0, GET), 1),                                  // 6.2
        (frame(1, 0x24, 1, b"\0\0"), 6),                           // 6.2: no priority
        (frame(1, 4, 1, b"\xbe"), 9),                              // RFC 7541, 2.3.3: no such entry
        (frame(1, 4, 1, b"\x3f\xe1\xff\x03"), 9), // RFC 7541, 6.3: a table larger than allowed
        (frame(3, 0, 0, &[0; 4]), 1),             // 6.4
        (frame(3, 0, 1, &[0; 4]), 1),             // 6.4: idle
        (frame(3, 0, 1, &[0; 3]), 6),             // 6.4
        (frame(4, 0, 1, b""), 1),                 // 6.5
        (frame(4, 0, 0, &[0; 5]), 6),             // 6.5
        (frame(4, 1, 0, &[0; 6]), 6),             // 6.5
        (frame(5, 4, 1, &[0; 4]), 1),             // 8.4: a client promises nothing
        (frame(6, 0, 1, &[0; 8]), 1),             // 6.7
        (frame(6, 0, 0, &[0; 7]), 6),             // 6.7
        (frame(8, 0, 1, &[0, 0, 0, 1]), 1),       // 6.9: idle
        (frame(8, 0, 0, &[0, 0, 1]), 6),          // 6.9
        (frame(9, 4, 1, GET), 1),                 // 6.10: no HEADERS before
        ([frame(1, 0, 1, GET), frame(0, 0, 1, b"x")].concat(), 1), // 6.10: interrupted
        ([frame(1, 0, 1, GET), frame(9, 4, 3, b"")].concat(), 1), // 6.10: of another
        ([frame(1, 0, 1, GET), frame(9, 0, 1, b"")].concat(), 11), // the flood of CONTINUATION
        (
            [frame(1, 0, 1, GET), frame(9, 0, 1, &[0; 32_000]).repeat(3)].concat(),
            11,
        ),
    ] {
        refused(&frames, code).await;
    }
}

#[tokio::test]
async fn what_follows_a_requests_end() {
    for again in [frame(0, 0, 1, b"x"), headers(1, true, b"")] {
        let mut ends = Frames::new().await;
        ends.client.send([headers(1, true, b""), again].concat()).await;
        let (head, payload) = next(&mut ends.client).await;
        assert_eq!((head, &payload[4..8]), ((7, 0, 0), &[0, 0, 0, 5][..]));
    }
}

#[tokio::test]
async fn the_first_frame_is_settings() {
    let rig = Rig::new().await;
    let (mut client, _service) = rig.pair().await;
    client.send([PREFACE, &headers(1, true, b"")].concat()).await;
    let (head, _) = next(&mut client).await;
    assert_eq!(head.0, 4);
    let (head, payload) = next(&mut client).await;
    assert_eq!((head, &payload[4..8]), ((7, 0, 0), &[0, 0, 0, 1][..]));
}

/// RFC 9113, 8.1.1: the stream alone is at fault, and the next request passes.
/// Once the client has ended its direction nobody reads from it.
#[tokio::test]
async fn a_connection_reset_behind_its_end() {
    let mut ends = Frames::new().await;
    ends.client.send(headers(1, true, b"")).await;
    ends.client.finish().await;
    let (head, _) = next(&mut ends.service).await;
    assert_eq!((head.0, head.2), (1, 1));
    assert!(ends.service.rest_bytes().await.is_empty());
    ends.client.reset();
    ends.service.expect_broken().await;
}

/// What is missing of it can't come any more, so nobody waits for it.
#[tokio::test]
async fn half_a_trigger_and_the_clients_end() {
    let mut ends = Frames::new().await;
    let post = frame(1, 4, 1, b"\x83\x86\x04\x05/take\x01\x05trips");
    ends.client.send([post, frame(0, 0, 1, b"half")].concat()).await;
    ends.client.finish().await;
    assert!(ends.service.rest_bytes().await.is_empty());
    ends.service.finish().await;
    ends.client.rest_bytes().await;
    assert!(ends.rig.taken().is_empty());
}

#[tokio::test]
async fn malformed_requests() {
    let length = |value: &[u8]| [b"\0\x0econtent-length", &[value.len() as u8][..], value].concat();
    for bad in [
        frame(1, 5, 1, b"\x82\x86\x01\x05trips"), // no :path
        frame(1, 5, 1, b"\x82\x04\x02/x"),        // no :scheme
        headers(1, true, b"\x82"),                // :method twice
        headers(1, true, b"\0\x01a\x01b\x82"),    // behind a field
        headers(1, true, b"\0\x01A\x01b"),        // upper case
        headers(1, true, b"\0\x01a\x03b\r\n"),    // a line's end
        headers(1, true, b"\0\x0aconnection\x05close"),
        headers(1, true, b"\0\x11transfer-encoding\x07chunked"),
        headers(1, true, b"\0\x04host\x05other"),
        headers(1, true, &length(b"5")), // a length, and no body
        [headers(1, false, &length(b"5")), frame(0, 1, 1, b"1234")].concat(),
        [headers(1, false, &length(b"3")), frame(0, 1, 1, b"1234")].concat(),
        [
            headers(1, false, &length(b"3")),
            frame(0, 0, 1, b"12"),
            frame(1, 5, 1, b""),
        ]
        .concat(),
        [headers(1, false, b""), frame(1, 5, 1, b"\x82")].concat(), // a pseudo-header in trailers
        [headers(1, false, b""), frame(1, 4, 1, b"")].concat(),     // trailers that are not the end
    ] {
        let mut ends = Frames::new().await;
        ends.client.send(&bad).await;
        let (head, payload) = loop {
            let frame = next(&mut ends.client).await;
            if frame.0.0 != 8 {
                break frame;
            }
        };
        assert_eq!((head, &payload[..]), ((3, 0, 1), &[0, 0, 0, 1][..]), "{bad:?}");
        ends.client.send(headers(3, true, b"")).await;
        // Whatever of the first one came to the service, it was told that it is none.
        let mut reset = true;
        loop {
            let (head, payload) = next(&mut ends.service).await;
            match head {
                (1, _, 1) => reset = false,
                (3, 0, 1) => {
                    assert_eq!(payload, [0, 0, 0, 1]);
                    reset = true;
                }
                (1, 5, 3) => break,
                (0 | 4, ..) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(reset, "{bad:?}");
        assert_eq!(ends.rig.proxy.counters().errors.malformed.get(), 1);
    }
}

/// Frames that Qbox does not know pass, and so do priorities, pings and settings.
#[tokio::test]
async fn others_pass() {
    let mut ends = Frames::new().await;
    ends.client.send(headers(1, false, b"")).await;
    ends.service.expect(headers(1, false, b"")).await;
    for frame in [
        frame(0xbe, 0x55, 1, b"new"),
        frame(0xbe, 0x55, 0, b"new"),
        frame(2, 0, 1, b"\0\0\0\0\x10"),
        frame(6, 0, 0, b"12345678"),
        frame(4, 0, 0, b"\0\x04\0\0\x10\0\xab\xcd\0\0\0\x01"),
        frame(16, 0, 0, b"\0\0\0\x01u=1"),
        frame(8, 0, 0, b"\0\0\0\x09"),
        frame(8, 0, 1, b"\0\0\0\x09"),
        frame(0, 8, 1, b"\x02body\0\0"),
    ] {
        ends.client.send(&frame).await;
        ends.service.expect(&frame).await;
    }
    for frame in [
        frame(1, 4, 1, b"\x08\x03103"),
        frame(1, 4, 1, b"\x88"),
        frame(0xbe, 0x55, 1, b"new"),
        frame(10, 0, 0, b"\0\x01x"),
        frame(6, 1, 0, b"12345678"),
        frame(5, 4, 1, b"\0\0\0\x02\x82"),
        frame(1, 5, 2, b"\x88"),
        frame(8, 0, 1, b"\0\0\0\x09"),
        frame(0, 9, 1, b"\x02body\0\0"),
    ] {
        ends.service.send(&frame).await;
        ends.client.expect(&frame).await;
    }
}

/// Both ends keep to what the proxy can hold.
#[tokio::test]
async fn settings_are_lowered() {
    let mut ends = Frames::new().await;
    ends.client
        .send(frame(4, 0, 0, b"\0\x05\0\xff\xff\xff\0\x01\0\x10\0\0"))
        .await;
    ends.service
        .expect(frame(4, 0, 0, b"\0\x05\0\0\x80\0\0\x01\0\x10\0\0"))
        .await;
    ends.service
        .send(frame(
            4,
            0,
            0,
            b"\0\x05\0\xff\xff\xff\0\x01\0\x10\0\0\0\x06\0\xff\0\0",
        ))
        .await;
    ends.client
        .expect(frame(
            4,
            0,
            0,
            b"\0\x05\0\0\x80\0\0\x01\0\x01\0\0\0\x06\0\x01\0\0",
        ))
        .await;
}

#[tokio::test]
async fn fields_that_are_too_long() {
    let mut ends = Frames::with(Settings {
        head: 1000,
        ..Settings::default()
    })
    .await;
    let long = [b"\0\x01a\x7f\xd1\x06".to_vec(), vec![b'v'; 976]].concat();
    ends.client.send(headers(1, true, &long)).await;
    let (head, payload) = next(&mut ends.client).await;
    assert_eq!(head, (1, 4, 1));
    assert!(payload.windows(3).any(|three| three == b"431"), "{payload:?}");
    assert_eq!(ends.rig.proxy.counters().errors.head_too_large.get(), 1);
    let many = b"\0\x01a\0".repeat(129);
    let mut ends = Frames::new().await;
    ends.client.send(headers(1, true, &many)).await;
    let (head, payload) = next(&mut ends.client).await;
    assert_eq!(head, (1, 4, 1));
    assert!(payload.windows(3).any(|three| three == b"431"), "{payload:?}");
}

#[tokio::test]
async fn streams_are_limited_and_resets_make_room() {
    let mut ends = Frames::with(Settings {
        streams: 2,
        ..Settings::default()
    })
    .await;
    ends.client
        .send(
            [
                headers(1, true, b""),
                headers(3, true, b""),
                headers(5, true, b""),
            ]
            .concat(),
        )
        .await;
    let (head, payload) = next(&mut ends.client).await;
    assert_eq!((head, &payload[..]), ((3, 0, 5), &[0, 0, 0, 7][..]));
    assert_eq!(ends.rig.proxy.counters().errors.streams.get(), 1);
    ends.service
        .expect([headers(1, true, b""), headers(3, true, b"")].concat())
        .await;
    // The rapid reset: each passes, none stays.
    let mut open = [1, 3];
    for stream in (7..2007).step_by(2) {
        let both = [frame(3, 0, open[0], &[0, 0, 0, 8]), headers(stream, true, b"")].concat();
        ends.client.send(&both).await;
        ends.service.expect(&both).await;
        open = [open[1], stream];
    }
}

/// The service's table and the client's differ once a request with new entries was taken: from then on fields are written
/// so that they need none.
#[tokio::test]
async fn a_table_that_the_service_does_not_share() {
    let mut ends = Frames::new().await;
    let entry = |block: &[u8]| frame(1, 5, 1, block);
    // `x: y` becomes an entry of the client's table with a request that is taken.
    ends.client
        .send(entry(b"\x82\x86\x04\x05/take\x01\x05trips\x40\x01x\x01y"))
        .await;
    let (head, _) = next(&mut ends.client).await;
    assert_eq!((head.0, head.2), (1, 1));
    assert_eq!(ends.rig.taken().len(), 1);
    ends.client.send(headers(3, true, b"\xbe")).await;
    // First of all the table is given up; `:path` and `:authority` by their names' numbers.
    ends.service
        .expect(frame(1, 5, 3, b"\x20\x82\x86\x04\x02/x\x01\x05trips\0\x01x\x01y"))
        .await;
    // And what is never to be in a table stays so.
    ends.client.send(headers(5, true, b"\xbe\x10\x01s\x01t")).await;
    ends.service
        .expect(frame(
            1,
            5,
            5,
            b"\x82\x86\x04\x02/x\x01\x05trips\0\x01x\x01y\x10\x01s\x01t",
        ))
        .await;
}

/// What Qbox sends uses up the client's window, of which the service does not know.
#[tokio::test]
async fn one_window_for_two() {
    let mut ends = Frames::new().await;
    let body = vec![b'b'; 100];
    ends.client
        .send(
            [
                frame(1, 4, 1, b"\x83\x86\x04\x05/take\x01\x05trips"),
                frame(0, 1, 1, &body),
            ]
            .concat(),
        )
        .await;
    let credit = next(&mut ends.client).await;
    assert_eq!(credit, ((8, 0, 0), vec![0, 0, 0, 100]));
    assert_eq!(next(&mut ends.client).await.0, (1, 4, 1));
    assert_eq!(next(&mut ends.client).await, ((0, 1, 1), body));
    // The service believes that it may send 65,535 bytes.
    ends.client.send(headers(3, true, b"")).await;
    ends.service.expect(headers(3, true, b"")).await;
    ends.service.send(frame(1, 4, 3, b"\x88")).await;
    for size in [32_768, 32_767] {
        ends.service.send(frame(0, 0, 3, &vec![0; size])).await;
    }
    assert_eq!(next(&mut ends.client).await.0, (1, 4, 3));
    assert_eq!(next(&mut ends.client).await.1.len(), 32_768);
    assert_eq!(
        next(&mut ends.client).await.1.len(),
        32_667,
        "100 less than the service has sent"
    );
    ends.client.send(frame(8, 0, 0, &[0, 0, 0, 130])).await;
    assert_eq!(next(&mut ends.client).await.1.len(), 100);
    ends.service.expect(frame(8, 0, 0, &[0, 0, 0, 30])).await;
}

/// A client that allows a smaller table waits for its end to say so in the next block, whoever writes that.
#[tokio::test]
async fn a_table_that_the_client_makes_smaller() {
    let rig = Rig::new().await;
    let (mut client, mut service) = rig.pair().await;
    let settings = frame(4, 0, 0, b"\0\x01\0\0\0\0");
    client.send([PREFACE, &settings].concat()).await;
    service.expect([PREFACE, &settings].concat()).await;
    service.send([SETTINGS, &frame(4, 1, 0, b"")].concat()).await;
    for _ in 0..2 {
        assert_eq!(next(&mut client).await.0.0, 4);
    }
    client
        .send(frame(1, 5, 1, b"\x82\x86\x04\x05/take\x01\x05trips"))
        .await;
    let (head, payload) = next(&mut client).await;
    assert_eq!((head.0, payload[0]), (1, 0x20));
}

impl Peer {
    /// Everything up to the peer's FIN or reset.
    pub(super) async fn rest_bytes(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut got))
            .await
            .expect("no end comes");
        got
    }
}

/// `POST http://trips/take`.
const TAKE: &[u8] = b"\x83\x86\x04\x05/take\x01\x05trips";

#[tokio::test]
async fn a_trigger_that_expects_100() {
    let mut ends = Frames::new().await;
    let expects = [TAKE, b"\0\x06expect\x0c100-continue"].concat();
    ends.client.send(frame(1, 4, 1, &expects)).await;
    ends.client.expect(frame(1, 4, 1, b"\x08\x03100")).await;
    ends.client.send(frame(0, 1, 1, b"trip")).await;
    assert_eq!(next(&mut ends.client).await.0, (8, 0, 0));
    assert_eq!(next(&mut ends.client).await.0, (1, 4, 1));
    assert_eq!(next(&mut ends.client).await, ((0, 1, 1), b"trip".to_vec()));
}

#[tokio::test]
async fn a_trigger_whose_body_stalls() {
    let mut ends = Frames::with(Settings {
        head_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    ends.client.send(frame(1, 4, 1, TAKE)).await;
    let (head, payload) = next(&mut ends.client).await;
    assert_eq!(head, (1, 4, 1));
    assert!(payload.windows(3).any(|three| three == b"408"), "{payload:?}");
    assert_eq!(next(&mut ends.client).await.0, (0, 1, 1));
    // It is answered, whatever else there is of it.
    ends.client.expect(frame(3, 0, 1, &[0; 4])).await;
    ends.client.send(frame(0, 1, 1, b"late")).await;
    ends.client.expect(frame(8, 0, 0, &[0, 0, 0, 4])).await;
    assert!(ends.rig.taken().is_empty());
}

/// Sixteen times the longest body is kept, and not a byte more.
#[tokio::test]
async fn bodies_of_one_connection_are_limited() {
    let mut ends = Frames::new().await;
    for stream in (1..35).step_by(2) {
        ends.client
            .send([frame(1, 4, stream, TAKE), frame(0, 0, stream, &[b'b'; 95])].concat())
            .await;
    }
    let refused = loop {
        let (head, payload) = next(&mut ends.client).await;
        if head.0 != 8 {
            break (head, payload);
        }
    };
    assert_eq!(refused.0, (1, 4, 33), "the seventeenth is one too many");
    assert!(refused.1.windows(3).any(|three| three == b"503"), "{refused:?}");
}

/// The table of `docs/http2.md` names tests that there are.
#[test]
fn the_table_names_tests() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = std::fs::read_to_string(root.join("docs/http2.md")).unwrap();
    let mut sources = String::new();
    for folder in [
        "qbox-userspace/src/proxy",
        "qbox-userspace/src/proxy/tests",
        "qbox-userspace/src/proxy/http2",
        "qbox-userspace/src/upstream",
        "tests/tests/http1",
        "tests/tests/http2",
    ] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut named = 0;
    for line in table
        .lines()
        .filter(|line| line.starts_with("| 9") || line.starts_with("| 7"))
    {
        let names = line.rsplit('|').nth(1).unwrap();
        for name in names.split(',').map(|name| name.trim_matches([' ', '`'])) {
            let is_there =
                sources.contains(&format!("fn {name}(")) || sources.contains(&format!("name: {name:?}"));
            assert!(is_there, "no test {name}: {line}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

/// Nothing stands before the server's SETTINGS (RFC 9113, 3.4), not even what Qbox has to say.
#[tokio::test]
async fn a_trigger_before_the_service_has_spoken() {
    let rig = Rig::new().await;
    let (mut client, mut service) = rig.pair().await;
    let hello = [PREFACE, SETTINGS].concat();
    let take = [
        frame(1, 4, 1, TAKE),
        frame(0, 1, 1, b"trip"),
        frame(1, 5, 3, b"\x82"),
    ]
    .concat();
    client.send([&hello[..], &take].concat()).await;
    service.expect(&hello).await;
    timeout(PATIENCE, rig.script.begun.notified()).await.unwrap();
    service.send(SETTINGS).await;
    let mut heads = Vec::new();
    for _ in 0..5 {
        heads.push(next(&mut client).await.0);
    }
    assert_eq!(heads, [(4, 0, 0), (8, 0, 0), (3, 0, 3), (1, 4, 1), (0, 1, 1)]);
}

/// A service that never begins does not keep a saga's answer from its client.
#[tokio::test]
async fn a_trigger_and_a_service_that_stays_silent() {
    let rig = Rig::with(Settings {
        head_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    let (mut client, mut service) = rig.pair().await;
    let hello = [PREFACE, SETTINGS].concat();
    let take = [frame(1, 4, 3, TAKE), frame(0, 1, 3, b"trip")].concat();
    client
        .send([&hello[..], &headers(1, true, b""), &take].concat())
        .await;
    service.expect(&hello).await;
    let mut frames = Vec::new();
    for _ in 0..6 {
        frames.push(next(&mut client).await);
    }
    let heads: Vec<_> = frames.iter().map(|(head, _)| *head).collect();
    // What had passed may have been served; what is the saga's is answered, and nothing new begins.
    assert_eq!(
        heads,
        [(4, 0, 0), (8, 0, 0), (3, 0, 1), (7, 0, 0), (1, 4, 3), (0, 1, 3)]
    );
    assert_eq!(frames[2].1, [0, 0, 0, 2]);
    assert_eq!(frames[3].1[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(frames[5].1, b"trip");
    assert!(client.rest_bytes().await.is_empty());
    assert_eq!(rig.proxy.counters().errors.upstream.get(), 1);
}

/// As over HTTP/1: who takes nothing is told soon that its service has broken the connection; who reads gets all of it first.
#[tokio::test]
async fn a_service_that_breaks_off_a_client_that_does_not_read() {
    let data = frame(0, 0, 1, &[b'x'; 16_384]);
    for reads in [false, true] {
        let mut ends = Frames::new().await;
        ends.client.send(headers(1, true, b"")).await;
        assert_eq!(next(&mut ends.service).await.0, (1, 5, 1));
        ends.service.send(frame(1, 4, 1, b"\x88")).await;
        let mut sent = 0;
        let mut left: &[u8] = &data;
        while let Ok(count) = timeout(Duration::from_millis(300), ends.service.stream.write(left)).await {
            left = &left[count.unwrap()..];
            if left.is_empty() {
                (sent, left) = (sent + 1, &data);
            }
            assert!(sent < 1 << 14, "all of it was taken in");
        }
        ends.service.reset();
        if reads {
            assert_eq!(next(&mut ends.client).await.0, (1, 4, 1));
            // What the service's kernel still had of it is lost with the reset.
            for _ in 0..8 {
                let (head, payload) = next(&mut ends.client).await;
                assert_eq!((head, payload.len()), ((0, 0, 1), 16_384));
            }
        }
        ends.client.expect_broken().await;
        assert_eq!(ends.rig.proxy.counters().errors.upstream.get(), 1);
    }
}
