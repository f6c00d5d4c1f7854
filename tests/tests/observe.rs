//! `mode = "observe"`: triggers reach their service as they are, no step is sent, and what would have been stands beside what was
//! answered.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, PORT, Pod, Settings, World, binary, wait_for, workspace};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The booking saga, only observed, at a service of this name.
fn settings(host: &str, extra: &str) -> Result<Settings> {
    let saga = fs::read_to_string(workspace().join(qbox_tests::BOOK_TRIP))?;
    let saga = saga
        .replace("[trigger]", "mode = \"observe\"\n[trigger]")
        .replace("trips.default.svc", host);
    Ok(Settings {
        extra: extra.to_owned(),
        level: Some("qbox=trace,info"),
        ..Settings::saga(saga)
    })
}

/// What `qbox sagas` prints.
fn sagas(world: &World, words: &[&str]) -> Result<String> {
    let output = Command::new(binary()?)
        .arg("sagas")
        .args(words)
        .env("QBOX_ADMIN_SOCKET", world.qbox.socket())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn listed(world: &World) -> Result<Vec<Value>> {
    let list = world.qbox.admin().json("/api/v1/observed")?;
    Ok(list["observed"].as_array().context("no list")?.clone())
}

/// The record of the trigger whose URL ends so, once all of it is there.
fn record(world: &World, end: &str) -> Result<Value> {
    wait_for(&format!("the record of {end}"), DEADLINE, || {
        let all = listed(world)?;
        let found = all
            .iter()
            .find(|one| one["url"].as_str().is_some_and(|url| url.ends_with(end)));
        let Some(id) = found.and_then(|one| one["id"].as_str()) else {
            return Ok(None);
        };
        let one = world.qbox.admin().json(&format!("/api/v1/observed/{id}"))?;
        let whole =
            one["answer"] != "pending" && (one["rehearsal"].is_object() || one["unrehearsed"].is_string());
        Ok(whole.then_some(one))
    })
}

/// The step's URLs that would have been asked, in order.
fn urls(record: &Value) -> Vec<&str> {
    let sent = record["rehearsal"]["sent"].as_array();
    let sent = sent.into_iter().flatten();
    sent.filter_map(|one| one["url"].as_str()).collect()
}

fn nothing_was_sent(world: &World) -> Result<()> {
    for name in ["hotel", "flight", "car"] {
        let asked = world.service(name)?.asked();
        ensure!(asked.is_empty(), "{name} was asked {asked:?}");
    }
    assert_eq!(world.qbox.admin().sagas()?, Vec::<Value>::new());
    Ok(())
}

const WISH: &str = r#"{ "guest": "Ada", "nights": 3, "car": "small" }"#;

#[test]
fn a_trigger_passes_and_what_would_be_sent_is_shown() -> Result<()> {
    let world = World::new(&settings("trips.default.svc", "")?)?;
    let (status, body) = world.book("7", WISH)?;
    let (direct, same) = {
        let url = "http://trips.default.svc:8081/trips/7";
        world.client.http(["-X", "POST", url, "-d", WISH])?
    };
    assert_eq!(
        (status, body.to_string()),
        (direct, same.parse::<Value>()?.to_string())
    );
    let one = record(&world, "/trips/7")?;
    assert_eq!(
        (&one["name"], &one["status"], &one["state"]),
        (&json!("book-trip"), &json!(status), &json!("committed"))
    );
    let hotel = "http://hotel.default.svc:8080/bookings/7";
    assert_eq!(
        urls(&one),
        [
            hotel,
            "http://flight.default.svc:8080/bookings/7",
            "http://car.default.svc:8080/bookings/7"
        ]
    );
    let first = &one["rehearsal"]["sent"][0];
    assert_eq!(first["body"], "{\"guest\":\"Ada\",\"nights\":3}");
    assert_eq!(one["rehearsal"]["reply"]["status"], 201);
    nothing_was_sent(&world)?;

    let id = one["id"].as_str().context("no id")?;
    let shown = sagas(&world, &["show", id])?;
    for line in [
        &format!("book-trip {id}: observed"),
        &format!("  caller  got {status} after "),
        "  saga    would be committed; its caller would have got 201",
        &format!("   1. hotel: PUT {hotel}"),
        "      {\"guest\":\"Ada\",\"nights\":3}",
        "   1. car: PUT http://car.default.svc:8080/bookings/7",
    ] {
        ensure!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let as_json: Value = sagas(&world, &["show", id, "--json"])?.parse()?;
    assert_eq!(as_json, one);
    let listed = sagas(&world, &["list", "--observed", "--name", "book-trip"])?;
    ensure!(listed.contains(id) && listed.contains("committed"), "{listed}");
    let no_saga = sagas(&world, &["show", "00000000-0000-0000-0000-000000000000"]);
    ensure!(no_saga.is_err_and(|error| error.to_string().contains("there is no saga of that id")));
    let metrics = world.qbox.admin().get("/metrics")?.body;
    ensure!(
        metrics.contains("qbox_observed_total{fate=\"recorded\"} 1"),
        "{metrics}"
    );
    Ok(())
}

/// A client that sends its input in small pieces, and writes what comes back.
const SEND: &str = r#"
import socket, sys
s = socket.create_connection(("raw", 8080), 30)
data = sys.stdin.buffer.read()
for i in range(0, len(data), 7):
    s.sendall(data[i:i + 7])
while True:
    got = s.recv(65536)
    if not got: break
    sys.stdout.buffer.write(got)
"#;

/// Takes one connection, reads until `end`, answers and closes; gives what was read.
fn once(listener: TcpListener, end: &'static [u8], answer: &'static [u8]) -> JoinHandle<Result<Vec<u8>>> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(end) {
            ensure!(stream.read(&mut byte)? == 1, "it ended after {read:?}");
            read.extend_from_slice(&byte);
        }
        stream.write_all(answer)?;
        Ok(read)
    })
}

#[test]
fn a_trigger_and_its_answer_pass_byte_for_byte() -> Result<()> {
    let world = World::new(&settings("raw", "")?)?;
    let raw = world.node.pod("raw")?;
    let chunked =
        b"POST /trips/a HTTP/1.1\r\nhOST: raw:8080\r\nX-One:1\r\nx-two:   spaces \r\nX-One: again\r\n\
        Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        005;ext=\"a;b\"\r\n{ \"gu\r\nD\r\nest\": \"Ada\" }\r\n0\r\nX-Sum: abc\r\n\r\n";
    let plain = b"POST http://raw:8080/trips/b HTTP/1.1\r\nHost: raw:8080\r\ncontent-LENGTH: 18\r\nConnection: close\r\n\r\n\
        { \"guest\": \"Eve\" }";
    let created: &[u8] =
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 299 Quite Fine\r\nSERVER: raw\r\n\
        Content-Length: 2\r\nconnection: close\r\n\r\nok";
    let refused: &[u8] =
        b"HTTP/1.1 409 No\r\ntransfer-encoding: Chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    for (request, end, answer) in [
        (&chunked[..], &b"X-Sum: abc\r\n\r\n"[..], created),
        (&plain[..], b"\"Eve\" }", refused),
        // No answer at all.
        (
            b"POST /trips/c HTTP/1.1\r\nHost: raw:8080\r\n\r\n",
            b"\r\n\r\n",
            b"",
        ),
    ] {
        let server = once(raw.listen(PORT)?, end, answer);
        let client = world.client.run_with_input(["python3", "-c", SEND], request)?;
        let read = server
            .join()
            .map_err(|_| anyhow::anyhow!("the service panicked"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&read), text(request), "the request was changed");
        assert_eq!(text(&client.stdout), text(answer), "the answer was changed");
    }
    let first = record(&world, "/trips/a")?;
    assert_eq!(
        (&first["status"], &first["state"]),
        (&json!(299), &json!("committed"))
    );
    assert_eq!(
        first["rehearsal"]["sent"][0]["body"],
        "{\"guest\":\"Ada\",\"nights\":\"1\"}"
    );
    assert_eq!(record(&world, "/trips/b")?["status"], 409);
    // Without a body no request of the saga can be filled in: it would have failed, and says why.
    let third = record(&world, "/trips/c")?;
    assert_eq!(
        (&third["answer"], &third["state"]),
        (&json!("unanswered"), &json!("compensated"))
    );
    assert_eq!(urls(&third), Vec::<&str>::new());
    let cause = third["rehearsal"]["steps"][0]["cause"]
        .as_str()
        .unwrap_or_default();
    ensure!(cause.contains("`${trigger.json.guest}` has no value"), "{cause}");
    nothing_was_sent(&world)
}

/// A service whose statuses come to stand in its connection's table, and a client that says what it is answered.
const SERVER: &str = r#"
const http2 = require("node:http2");
for (const port of process.argv.slice(1)) {
  const server = http2.createServer();
  server.on("stream", (stream, headers) => {
    let body = "";
    stream.on("data", (part) => (body += part));
    stream.on("end", () => {
      const fields = stream.rawHeaders ?? Object.entries(headers);
      stream.respond({ ":status": Number(headers[":path"].split("/").pop()) });
      stream.end(JSON.stringify([fields.filter(([name]) => name !== ":authority"), body]));
    });
  });
  server.listen(Number(port), "::", () => console.log("ready"));
}
"#;
const CLIENT: &str = r#"
const http2 = require("node:http2");
const [origin, body, ...paths] = process.argv.slice(1);
const session = http2.connect(origin);
const ask = (path) => new Promise((done) => {
  const stream = session.request({ ":method": "POST", ":path": path, "X-Own": path });
  let answer = "", status;
  stream.on("response", (headers) => (status = headers[":status"]));
  stream.on("data", (part) => (answer += part));
  stream.on("close", () => done([path, status, answer]));
  stream.end(body);
});
(async () => {
  for (const path of paths) console.log(JSON.stringify(await ask(path)));
  session.close();
})();
"#;

fn node_server(pod: &Pod) -> Result<std::process::Child> {
    let mut server = pod
        .command("node")
        .args(["-e", SERVER, "8080", "8081"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(server.stdout.take().context("no output")?).lines();
    let ready = lines.take(2).collect::<Result<Vec<_>, _>>()?;
    ensure!(ready.len() == 2, "the service has not started: {ready:?}");
    Ok(server)
}

#[test]
fn the_same_over_http_2() -> Result<()> {
    let world = World::new(&settings("stay", "")?)?;
    let pod = world.node.pod("stay")?;
    let mut server = node_server(&pod)?;
    let paths = [
        "/trips/201",
        "/other/201",
        "/trips/409",
        "/other/409",
        "/trips/200",
        "/trips/418",
    ];
    let again: Vec<&str> = paths.iter().chain(&paths).copied().collect();
    let run = |port: u16| -> Result<String> {
        let origin = format!("http://stay:{port}");
        let words = ["node", "-e", CLIENT, &origin, WISH];
        world.client.run(words.iter().chain(&again))?.ok()
    };
    // Port 8081 is not captured.
    let (direct, through) = (run(8081)?, run(8080)?);
    assert_eq!(direct.lines().count(), again.len(), "{direct}");
    for (direct, through) in direct.lines().zip(through.lines()) {
        assert_eq!(direct, through, "without Qbox, and with it");
    }
    server.kill()?;
    server.wait()?;
    let statuses = wait_for("every answer", DEADLINE, || {
        let all = listed(&world)?;
        let known = all.iter().map(|one| one["status"].as_u64());
        let known: Option<Vec<u64>> = known.collect();
        Ok(known.filter(|known| known.len() == 8))
    })?;
    assert_eq!(
        statuses,
        [418, 200, 409, 201, 418, 200, 409, 201],
        "youngest first"
    );
    let one = record(&world, "/trips/418")?;
    assert_eq!(urls(&one).len(), 3, "{one}");
    nothing_was_sent(&world)
}

#[test]
fn the_newest_are_kept_and_no_secret_is() -> Result<()> {
    let extra = "[limits]\nobserved = 3\ntrigger_body = \"2KiB\"\n[secrets]\njson = [\"guest\"]\n";
    let world = World::new(&settings("trips.default.svc", extra)?)?;
    let wish = r#"{ "guest": "hunter2", "car": "small" }"#;
    for trip in 1..=5 {
        let url = format!("http://trips.default.svc:{PORT}/trips/{trip}?api_key=hunter2");
        let words = [
            "-X",
            "POST",
            &url,
            "-d",
            wish,
            "-H",
            "Authorization: Bearer hunter2",
        ];
        world.client.http(words)?;
    }
    // The service has seen them all.
    let last = world.service("trips")?.asked().pop().context("no request came")?;
    assert_eq!(
        (last.header("authorization"), last.body.as_str()),
        (Some("Bearer hunter2"), wish)
    );
    let long = format!("{{ \"guest\": \"{}\" }}", "x".repeat(4000));
    assert_ne!(world.book("6", &long)?.0, 413, "what is too long passes unseen");
    let mut seen = String::new();
    for (trip, one) in ["5", "4", "3"].iter().zip(listed(&world)?) {
        ensure!(
            one["url"]
                .as_str()
                .is_some_and(|url| url.contains(&format!("/trips/{trip}?"))),
            "{one}"
        );
        let id = one["id"].as_str().context("no id")?;
        let whole = record(&world, one["url"].as_str().unwrap_or_default())?;
        assert_eq!(
            whole["rehearsal"]["sent"][0]["body"],
            "{\"guest\":\"[redacted]\",\"nights\":\"1\"}"
        );
        seen += &whole.to_string();
        seen += &sagas(&world, &["show", id])?;
    }
    assert_eq!(listed(&world)?.len(), 3);
    seen += &sagas(&world, &["list", "--observed"])?;
    seen += &world.qbox.log();
    ensure!(!seen.contains("hunter2"), "{seen}");
    let metrics = world.qbox.admin().get("/metrics")?.body;
    for (fate, count) in [("recorded", 5), ("dropped", 2), ("unrehearsed", 0), ("unseen", 1)] {
        let line = format!("qbox_observed_total{{fate=\"{fate}\"}} {count}");
        ensure!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    nothing_was_sent(&world)
}

/// From observing to doing, without a restart.
#[test]
fn an_observed_saga_is_enforced_by_one_word() -> Result<()> {
    let settings = settings("trips.default.svc", "")?;
    let world = World::new(&settings)?;
    world.book("1", WISH)?;
    record(&world, "/trips/1")?;
    nothing_was_sent(&world)?;
    let saga = settings.sagas.concat().replace("\"observe\"", "\"enforce\"");
    fs::write(world.qbox.sagas().join("0.toml"), saga)?;
    let mut trip = 1;
    let body = wait_for("the saga to run", DEADLINE, || {
        trip += 1;
        let (status, body) = world.book(&trip.to_string(), WISH)?;
        Ok((status == 201 && body["saga"].is_string()).then_some(body))
    })?;
    let id = body["saga"].as_str().context("no saga")?;
    ensure!(sagas(&world, &["show", id])?.contains("committed"));
    assert_eq!(world.booked(&trip.to_string()), ["hotel", "flight", "car"]);
    // What was observed can still be compared.
    record(&world, "/trips/1").map(drop)
}
