//! However a stream of bytes is split into reads, what comes out is the same.

use super::*;
use proptest::prelude::*;
use tokio::task::yield_now;

/// Requests that pass, and the responses that they get; between them some that are taken.
const EXCHANGES: &[(&str, Option<&str>)] = &[
    (
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Some("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ),
    (
        "HEAD / HTTP/1.1\r\n\r\n",
        Some("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
    ),
    (
        "\r\nPOST / HTTP/1.1\r\ncontent-LENGTH: 4\r\n\r\nbody",
        Some("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\n"),
    ),
    ("GET /take HTTP/1.1\r\n\r\n", None),
    (
        "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;e=f\r\nGET\r\n0\r\nT: /\r\n\r\n",
        Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nHTTP/1.1 \r\n0\r\n\r\n"),
    ),
    (
        "POST /take HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        None,
    ),
    (
        "GET /n HTTP/1.1\r\n\r\n",
        Some("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
    ),
    (
        "DELETE /last HTTP/1.1\r\nConnection: close\r\n\r\n",
        Some("HTTP/1.1 200 OK\r\n\r\nuntil the end"),
    ),
];

fn taken_reply(request: &str) -> String {
    if request.contains("\r\nhi\r\n") {
        echo("hi")
    } else {
        echo("")
    }
}

/// Writes `bytes` in pieces of these sizes, over and over, and lets others run in between.
async fn trickle(peer: &mut Peer, bytes: &[u8], sizes: &[usize]) {
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        peer.send(piece).await;
        rest = behind;
        for _ in 0..4 {
            yield_now().await;
        }
    }
}

/// Runs all exchanges; the client pipelines, the service answers request by request.
async fn exchange(client_sizes: Vec<usize>, server_sizes: Vec<usize>) {
    let rig = Rig::new().await;
    let (mut client, mut server) = rig.pair().await;
    let requests: String = EXCHANGES.iter().map(|(request, _)| *request).collect();
    let expected: String = (EXCHANGES.iter())
        .map(|(request, response)| response.map_or_else(|| taken_reply(request), str::to_owned))
        .collect();
    let service = tokio::spawn(async move {
        for (request, response) in EXCHANGES {
            if let Some(response) = response {
                server.expect(request).await;
                trickle(&mut server, response.as_bytes(), &server_sizes).await;
            }
        }
        server.finish().await;
        server.expect_end().await;
    });
    trickle(&mut client, requests.as_bytes(), &client_sizes).await;
    assert_eq!(client.rest().await, expected);
    client.finish().await;
    service.await.unwrap();
    assert_eq!(rig.taken().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_either_stream(
        client_sizes in prop::collection::vec(1_usize..40, 1..12),
        server_sizes in prop::collection::vec(1_usize..40, 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(exchange(client_sizes, server_sizes));
    }
}

#[tokio::test]
async fn byte_by_byte_and_all_at_once() {
    exchange(vec![1], vec![1]).await;
    exchange(vec![usize::MAX], vec![usize::MAX]).await;
}
