//! HTTP/2 with prior knowledge, from pods whose connections are captured: triggers begin sagas, and a client sees of its
//! service what it sees without Qbox (on port 8081, which no trigger names).
//!
//! Clients and services are files beside this one. `cargo xtask test` installs the libraries that they use
//! (`requirements.txt`) in a folder of its own and names it in `QBOX_TEST_TOOLS`.

use anyhow::{Context, Result, ensure};
use qbox_tests::{PORT, Pod, Settings, World, workspace};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Where the pod `stay` speaks HTTP/2, and the saga's triggers go.
const SAGA: &str = "http://stay:8080";
/// The same service, on a port that is not captured.
const DIRECT: &str = "http://stay:8081";

/// The world of the booking saga, whose triggers go to a service of HTTP/2.
struct Stay {
    world: World,
    pod: Pod,
    server: Child,
}

impl Stay {
    fn new(program: &str, script: &str) -> Result<Self> {
        let saga = fs::read_to_string(workspace().join(qbox_tests::BOOK_TRIP))?;
        Self::with(&saga.replace("trips.default.svc", "stay"), program, script)
    }

    fn with(saga: &str, program: &str, script: &str) -> Result<Self> {
        let world = World::new(&Settings::saga(saga))?;
        let pod = world.node.pod("stay")?;
        let mut server = pod
            .command(program)
            .arg(path(script))
            .args(["8080", "8081"])
            .stdout(Stdio::piped())
            .spawn()?;
        let said = server.stdout.take().context("no output")?;
        let ready = BufReader::new(said)
            .lines()
            .take(2)
            .collect::<Result<Vec<_>, _>>()?;
        ensure!(ready.len() == 2, "the service has not started: {ready:?}");
        Ok(Self { world, pod, server })
    }

    fn node() -> Result<Self> {
        Self::new("node", "server.mjs")
    }

    /// What a client says of each of the two ports.
    fn compare(&self, program: &str, script: &str) -> Result<()> {
        let run = |origin| -> Result<String> {
            let script = path(script);
            self.world.client.run([program, script.as_str(), origin])?.ok()
        };
        let (direct, through) = (run(DIRECT)?, run(SAGA)?);
        ensure!(direct.lines().count() > 5, "{direct}");
        let pairs = direct.lines().zip(through.lines());
        for (direct, through) in pairs {
            assert_eq!(direct, through, "without Qbox, and with it");
        }
        assert_eq!(direct.lines().count(), through.lines().count());
        Ok(())
    }

    fn counted(&self, line: &str) -> Result<bool> {
        let metrics = self.world.qbox.admin().get("/metrics")?;
        Ok(metrics.body.lines().any(|said| said == line))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // The pod's end is its processes' end; this one is waited for.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = &self.pod;
    }
}

/// Python with the libraries that the scripts use.
fn python() -> Result<String> {
    let folder =
        env::var_os("QBOX_TEST_TOOLS").map_or_else(|| workspace().join("target/test-tools"), PathBuf::from);
    let python = folder.join("http2/bin/python");
    ensure!(
        python.exists(),
        "there is no {}: `cargo xtask test` installs it",
        python.display()
    );
    Ok(python.to_string_lossy().into_owned())
}

fn path(script: &str) -> String {
    let path = workspace().join("tests/tests/http2").join(script);
    path.to_string_lossy().into_owned()
}

const BOOKING: &str = r#"{ "guest": "Ada", "nights": 3, "from": "LIS", "to": "OSL", "car": "small" }"#;

#[test]
fn nodes_client_sees_what_it_sees_without() -> Result<()> {
    let stay = Stay::node()?;
    stay.compare("node", "client.mjs")?;
    ensure!(stay.counted("qbox_connections_http2_total 1")?);
    Ok(())
}

/// (Each request on a connection of its own: this curl can't use one with prior knowledge again, with or without Qbox.)
#[test]
fn curl_begins_a_saga() -> Result<()> {
    let stay = Stay::node()?;
    let version = ["--http2-prior-knowledge", "--write-out", "\n%{http_version}"];
    let ask = |words: &[&str]| -> Result<String> {
        let said = stay.world.client.curl(version.iter().chain(words))?.ok()?;
        let (body, version) = said.rsplit_once('\n').context("no version")?;
        ensure!(version == "2", "{said}");
        Ok(body.to_owned())
    };
    let passed: Value = serde_json::from_str(&ask(&[&format!("{SAGA}/rooms/1")])?)?;
    assert_eq!(
        (&passed["path"], &passed["method"]),
        (&json!("/rooms/1"), &json!("GET"))
    );
    let taken: Value = serde_json::from_str(&ask(&["-d", BOOKING, &format!("{SAGA}/trips/c1")])?)?;
    assert_eq!((&taken["booked"], &taken["trip"]), (&json!(true), &json!("c1")));
    assert_eq!(stay.world.booked("c1"), ["hotel", "flight", "car"]);
    // With a key, sent again: the same saga's answer. Below too many sagas: 508.
    let again = [
        "-d",
        BOOKING,
        "-H",
        "Idempotency-Key: k",
        &format!("{SAGA}/trips/c2"),
    ];
    assert_eq!(ask(&again)?, ask(&again)?);
    let deep = [
        "-d",
        BOOKING,
        "-H",
        "X-Qbox-Depth: 9",
        &format!("{SAGA}/trips/c3"),
    ];
    ensure!(ask(&deep)?.contains("508"), "nested too deeply");
    Ok(())
}

/// Half of them are triggers.
#[test]
fn a_thousand_streams_of_one_connection() -> Result<()> {
    const CLIENT: &str = r#"
const http2 = require("node:http2");
const [origin, booking] = process.argv.slice(1);
const session = http2.connect(origin);
const ask = (at) => new Promise((done) => {
  const path = at % 2 ? `/trips/n${at}` : `/rooms/${at}`;
  const stream = session.request({ ":method": "POST", ":path": path });
  let body = "", status;
  stream.on("response", (headers) => (status = headers[":status"]));
  stream.on("data", (part) => (body += part));
  stream.on("error", (error) => (body += error.message));
  stream.on("close", () => done([path, status, at % 2 ? body.includes("booked") : JSON.parse(body).path === path]));
  stream.end(booking);
});
Promise.all(Array.from({ length: 1000 }, (_, at) => ask(at))).then((all) => {
  console.log(JSON.stringify(all.filter(([path, status, right]) => !right || status !== (path.startsWith("/trips") ? 201 : 200))));
  session.close();
});
"#;
    let stay = Stay::node()?;
    let said = stay
        .world
        .client
        .run(["node", "-e", CLIENT, SAGA, BOOKING])?
        .ok()?;
    let wrong: Value = serde_json::from_str(&said)?;
    assert_eq!(wrong, json!([]));
    for at in (1..1000).step_by(2) {
        assert_eq!(stay.world.booked(&format!("n{at}")), ["hotel", "flight", "car"]);
    }
    Ok(())
}

/// Unary calls, streams of all kinds, failures with their details, deadlines, cancellation, 1,000 calls at once.
#[test]
fn grpc_sees_what_it_sees_without() -> Result<()> {
    let python = python()?;
    let stay = Stay::new(&python, "grpc_server.py")?;
    stay.compare(&python, "grpc_client.py")?;
    ensure!(stay.counted("qbox_connections_http2_total 1")?);
    Ok(())
}

#[test]
fn pythons_httpx_begins_sagas() -> Result<()> {
    let python = python()?;
    let stay = Stay::node()?;
    let script = path("httpx_client.py");
    let passed = stay.world.client.run([&python, &script, SAGA])?.ok()?;
    assert_eq!(passed.trim(), "[]", "answers that are not the right ones");
    let taken = stay.world.client.run([&python, &script, SAGA, BOOKING])?.ok()?;
    assert_eq!(taken.trim(), "[]", "answers that are not the right ones");
    for at in (0..300).step_by(3) {
        assert_eq!(stay.world.booked(&format!("p{at}")), ["hotel", "flight", "car"]);
    }
    ensure!(stay.counted("qbox_requests_total{handling=\"taken\"} 100")?);
    Ok(())
}

/// The trigger itself goes on to its service, which speaks HTTP/2 alone, from the pod's own address.
#[test]
fn a_trigger_is_forwarded_over_http_2() -> Result<()> {
    let saga = r#"
name = "forwarding"
[trigger]
method = "POST"
url = "http://stay:8080/rooms/{room}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.room}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${trigger.path.room}" }
[[step]]
name = "rooms"
kind = "pivot"
after = ["hotel"]
request = "forward"
[reply.success]
from = "rooms"
"#;
    let stay = Stay::with(saga, "node", "server.mjs")?;
    let url = format!("{SAGA}/rooms/7?a=b");
    let words = [
        "--http2-prior-knowledge",
        "-X",
        "POST",
        "-d",
        "hello",
        "-H",
        "X-Own: kept",
        &url,
    ];
    let (status, body) = stay.world.client.http(words)?;
    assert_eq!(status, 200, "{body}");
    let said: Value = serde_json::from_str(&body)?;
    assert_eq!(
        (&said["path"], &said["body"], &said["authority"]),
        (&json!("/rooms/7?a=b"), &json!("hello"), &json!("stay:8080"))
    );
    let fields = said["fields"].as_array().context("no fields")?;
    for field in ["x-own: kept", "x-qbox-step: rooms", "content-length: 5"] {
        ensure!(fields.contains(&json!(field)), "{field} is not in {fields:?}");
    }
    let client = &stay.world.client;
    let own = [client.ipv4(), client.ipv6()].map(|address| json!(address.to_string()));
    ensure!(
        own.contains(&said["peer"]),
        "{} is not the pod's own: {own:?}",
        said["peer"]
    );
    assert_eq!(stay.world.booked("7"), ["hotel"]);
    Ok(())
}

/// A service of HTTP/1 alone is asked for HTTP/2: its client is told what it is told without Qbox.
#[test]
fn a_service_that_speaks_http_1() -> Result<()> {
    let world = World::book_trip()?;
    let ask = |port: u16| -> Result<(Option<i32>, String)> {
        let url = format!("http://trips.default.svc:{port}/x");
        let end = world.client.curl(["--http2-prior-knowledge", &url])?;
        Ok((end.status.code(), end.stderr.replace(&port.to_string(), "PORT")))
    };
    assert_eq!(ask(8081)?, ask(PORT)?);
    Ok(())
}

/// GOAWAY, and what is under way ends within the grace.
#[test]
fn qbox_ends_and_streams_end_before() -> Result<()> {
    const CLIENT: &str = r#"
const http2 = require("node:http2");
const session = http2.connect(process.argv[1]);
session.once("goaway", (code, last) => { console.log("goaway", code, last > 0); stream.end("rest"); });
const stream = session.request({ ":method": "POST", ":path": "/up" });
stream.write("begun ");
let body = "";
stream.on("data", (part) => (body += part));
stream.on("close", () => console.log(JSON.parse(body).body, stream.rstCode));
session.on("connect", () => session.ping(() => console.log("begun")));
session.on("close", () => console.log("closed"));
"#;
    let mut stay = Stay::node()?;
    let mut client = (stay.world.client.command("node"))
        .args(["-e", CLIENT, SAGA])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(client.stdout.take().context("no output")?).lines();
    assert_eq!(lines.next().transpose()?.as_deref(), Some("begun"));
    stay.world.qbox.stop(Signal::TERM)?;
    let said: Vec<String> = lines.collect::<Result<_, _>>()?;
    client.wait()?;
    assert_eq!(said, ["goaway 0 true", "begun rest 0", "closed"]);
    Ok(())
}
