//! The queue and the export against a collector that is there, slow, or not there at all.

use super::*;
use crate::upstream;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn span(id: u64) -> Span {
    Span::new((7, 1), (id, None), Kind::Internal, &["x"], (1, 2))
}

fn start(url: String) -> Spans {
    Spans::start(Settings {
        url,
        upstream: Upstream::new(upstream::Settings::default()),
        resource: Vec::new(),
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(10),
    })
}

/// Reads one request and answers it.
async fn answer(stream: &mut TcpStream, status: &str) {
    let mut read = Vec::new();
    loop {
        let head = read.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if read.len() >= head + 4 + length.trim().parse::<usize>().unwrap() {
                break;
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn until(spans: &Spans, reached: impl Fn(Counts) -> bool) {
    let begin = Instant::now();
    while !reached(spans.counts()) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", spans.counts());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_batch_that_the_collector_can_not_take_yet_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spans = start(format!("http://{}/v1/traces", listener.local_addr().unwrap()));
    spans.tell(&span(1));
    let (mut stream, _) = listener.accept().await.unwrap();
    answer(&mut stream, "503 Service Unavailable").await;
    answer(&mut stream, "200 OK").await;
    until(&spans, |counts| counts.sent == 1).await;
    // One that never will be is not.
    spans.tell(&span(2));
    let again = async {
        answer(&mut stream, "400 Bad Request").await;
        until(&spans, |counts| counts.failed == 1).await;
    };
    again.await;
    assert_eq!(spans.counts().dropped, 0);
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_nobody_waits() {
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spans = start(format!("http://{}/v1/traces", silent.local_addr().unwrap()));
    let begin = Instant::now();
    // The exporter takes what it can hold in one batch beside the queue.
    for id in 0..3 * QUEUE as u64 {
        spans.tell(&span(id));
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "somebody waited");
    let counts = spans.counts();
    assert!(counts.dropped >= QUEUE as u64, "{counts:?}");
    assert!(counts.queued <= QUEUE, "{counts:?}");
    // Its end is not waited for either.
    spans.close(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn what_waits_is_sent_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spans = Spans::start(Settings {
        interval: Duration::from_secs(3600),
        url: format!("http://{}/v1/traces", listener.local_addr().unwrap()),
        upstream: Upstream::new(upstream::Settings::default()),
        resource: Vec::new(),
        timeout: Duration::from_secs(10),
    });
    spans.tell(&span(1));
    spans.tell(&span(2));
    let collector = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, "200 OK").await;
    };
    tokio::join!(collector, spans.close(Duration::from_secs(10)));
    assert_eq!(
        spans.counts(),
        Counts {
            sent: 2,
            ..Counts::default()
        }
    );
}
