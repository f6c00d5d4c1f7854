//! Which connections the kernel turns to Qbox, and what their two ends notice of it: nothing.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, Node, PORT, Service, Settings, World, wait_for};
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::thread;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TRIP: &str = "http://trips.default.svc:8080/trips/7";

fn json_of(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text:?}"))
}

/// A wish for a trip, sent to an address.
fn post_to(world: &World, url: &str) -> Result<(u16, String)> {
    let host = "Host: trips.default.svc:8080";
    world.client.http(["-X", "POST", "-H", host, "-d", WISH, url])
}

/// The saga's own reply, and what it left in the ledgers.
fn assert_saga(world: &World, id: &str, status: u16, reply: &Value) -> Result<()> {
    assert_eq!(status, 201, "{reply}");
    assert_eq!(reply["trip"], id);
    assert_eq!(reply["booked"], true);
    assert_eq!(world.booked(id), ["hotel", "flight", "car"]);
    let saga = world
        .qbox
        .admin()
        .saga(reply["saga"].as_str().context("no saga id")?)?;
    assert_eq!(saga["state"], "committed", "{saga:#}");
    assert_eq!(saga["name"], "book-trip");
    Ok(())
}

#[test]
fn a_plain_curl_becomes_a_saga() -> Result<()> {
    let world = World::book_trip()?;
    let (status, reply) = world.book("7", WISH)?;
    assert_saga(&world, "7", status, &reply)?;
    assert!(
        world.service("trips")?.asked().is_empty(),
        "the trigger reached the service"
    );

    let put = world
        .service("hotel")?
        .asked()
        .pop()
        .context("hotel wasn't asked")?;
    assert_eq!((put.method.as_str(), put.target.as_str()), ("PUT", "/bookings/7"));
    assert_eq!(json_of(&put.body)?, json!({ "guest": "Ada", "nights": 3 }));
    let saga = reply["saga"].as_str().context("no saga id")?;
    assert_eq!(put.header("x-qbox-transactionid"), Some(saga));
    assert_eq!(put.header("x-qbox-message-type"), Some("TRANSACTION"));
    assert_eq!(put.header("x-qbox-step"), Some("hotel"));
    assert_eq!(
        put.header("idempotency-key"),
        Some(format!("\"{saga}/hotel\"").as_str())
    );
    assert!(put.header("traceparent").is_some() && put.header("x-qbox-depth").is_some());
    Ok(())
}

/// What the configuration lets pass is not captured, by either family, although a trigger has its port.
#[test]
fn what_is_let_pass_is_left_alone() -> Result<()> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let world = World::new(&Settings {
        // The first pod is the service `trips`.
        capture: "pass = [\"10.88.0.2:8080\", \"fd42:88::/126\"]\n",
        ..Settings::saga(text)
    })?;
    let trips = world.pod_of("trips")?;
    assert_eq!(trips.ipv4().to_string(), "10.88.0.2");
    for (number, place) in [trips.ipv4().to_string(), format!("[{}]", trips.ipv6())]
        .iter()
        .enumerate()
    {
        let url = format!("http://{place}:8080/trips/{number}");
        let (_, body) = post_to(&world, &url)?;
        assert_eq!(json_of(&body)?["service"], "trips", "{url}");
    }
    assert!(world.qbox.admin().sagas()?.is_empty());
    let captured = || {
        let sample = "qbox_captured_connections_total{fate=\"captured\"}";
        world.qbox.admin().metric(sample)
    };
    assert_eq!(captured()?, 0);
    // All other places of that port are captured, as ever.
    let url = format!("http://{}:8080/trips/9", world.pod_of("hotel")?.ipv4());
    let (status, reply) = post_to(&world, &url)?;
    assert_saga(&world, "9", status, &json_of(&reply)?)?;
    assert_eq!(captured()?, 1);
    Ok(())
}

/// The same address, but no trigger; and another port.
#[test]
fn what_is_no_trigger_is_answered_by_the_service_which_sees_the_pod() -> Result<()> {
    let world = World::book_trip()?;
    let pod = world.client.ipv4().to_string();
    for (method, url) in [
        ("GET", TRIP),
        ("POST", "http://trips.default.svc:8080/trips"),
        ("POST", "http://trips.default.svc:8080/other/7"),
        ("POST", "http://trips.default.svc:8081/trips/7"),
    ] {
        let (_, body) = world.client.http(["-X", method, url])?;
        let body = json_of(&body)?;
        assert_eq!(body["service"], "trips", "{method} {url}");
        assert_eq!(body["peer"], pod.as_str(), "{method} {url}");
    }
    assert!(world.qbox.admin().sagas()?.is_empty());
    assert!(world.booked("7").len() <= 1, "a saga ran");
    Ok(())
}

const PEER: &str = r#"
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.create_connection((host, port), 20)
print(s.getpeername()[0], s.getpeername()[1])
"#;

#[test]
fn getpeername_shows_the_address_that_was_asked_for() -> Result<()> {
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?;
    for address in [
        trips.ipv4().to_string(),
        trips.ipv6().to_string(),
        format!("::ffff:{}", trips.ipv4()),
    ] {
        for port in ["8080", "8081"] {
            let seen = world.client.python(PEER, &[&address, port])?;
            assert_eq!(seen.trim(), format!("{address} {port}"));
        }
    }
    Ok(())
}

#[test]
fn ipv6_is_captured_and_passed() -> Result<()> {
    let world = World::book_trip()?;
    let resolve = format!("trips.default.svc:8080:[{}]", world.pod_of("trips")?.ipv6());
    let words = ["--ipv6", "--resolve", &resolve];
    let trigger = ["-X", "POST", TRIP, "-d", WISH];
    let (status, body) = world.client.http(words.iter().chain(&trigger))?;
    assert_saga(&world, "7", status, &json_of(&body)?)?;
    let (_, body) = world.client.http(words.iter().chain(&[TRIP]))?;
    let body = json_of(&body)?;
    assert_eq!(body["service"], "trips");
    assert_eq!(body["peer"], world.client.ipv6().to_string());
    Ok(())
}

/// As Java, and whatever else opens IPv6 sockets alone, speaks to IPv4.
const MAPPED: &str = r#"
import http.client, socket, sys, json
class Mapped(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(("::ffff:" + sys.argv[1], 8080))
for method, body in (("POST", sys.argv[2]), ("GET", None)):
    c = Mapped("trips.default.svc", 8080)
    c.request(method, "/trips/7", body)
    r = c.getresponse()
    print(json.dumps([r.status, json.load(r)]))
"#;

#[test]
fn ipv4_mapped_is_captured_and_passed() -> Result<()> {
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?.ipv4().to_string();
    let lines = world.client.python(MAPPED, &[&trips, WISH])?;
    let mut answers = lines.lines().map(json_of);
    let trigger = answers.next().context("no answer")??;
    assert_eq!(trigger[0], 201);
    assert_saga(&world, "7", 201, &trigger[1])?;
    let other = answers.next().context("no second answer")??;
    assert_eq!(other[1]["service"], "trips");
    assert_eq!(other[1]["peer"], world.client.ipv4().to_string());
    Ok(())
}

/// One connection, kept alive: a trigger, no trigger, a trigger.
const PYTHON: &str = r#"
import http.client, sys, json
c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=30)
for method, trip in (("POST", 7), ("GET", 7), ("POST", 8)):
    c.request(method, "/trips/%d" % trip, sys.argv[1] if method == "POST" else None)
    r = c.getresponse()
    print(json.dumps([r.status, json.loads(r.read())]))
"#;

const NODE: &str = r#"
const http = require("http");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const ask = (method, trip) => new Promise((resolve, reject) => {
  const r = http.request({ host: "trips.default.svc", port: 8080, path: "/trips/" + trip, method, agent }, (answer) => {
    let text = "";
    answer.on("data", (part) => (text += part));
    answer.on("end", () => resolve(console.log(JSON.stringify([answer.statusCode, JSON.parse(text)]))));
  });
  r.on("error", reject);
  r.end(method === "POST" ? process.argv[1] : undefined);
});
(async () => {
  await ask("POST", 7); await ask("GET", 7); await ask("POST", 8);
  agent.destroy();
})().catch((error) => { console.error(error); process.exit(1); });
"#;

#[test]
fn python_and_node_clients() -> Result<()> {
    for command in [["python3", "-c", PYTHON, WISH], ["node", "-e", NODE, WISH]] {
        let world = World::book_trip()?;
        let lines = world.client.run(command)?.ok()?;
        let answers = lines.lines().map(json_of).collect::<Result<Vec<_>>>()?;
        ensure!(answers.len() == 3, "{}: {lines}", command[0]);
        assert_saga(&world, "7", 201, &answers[0][1])?;
        assert_eq!(answers[1][1]["service"], "trips", "{}", command[0]);
        assert_eq!(answers[1][1]["peer"], world.client.ipv4().to_string());
        assert_saga(&world, "8", 201, &answers[2][1])?;
    }
    Ok(())
}

/// A process on the node that is in no enrolled cgroup, Qbox's own calls among them.
/// A process in a pod can't make up where a connection was going by connecting to the listener itself.
#[test]
fn who_comes_to_a_listener_uncaptured_is_reset() -> Result<()> {
    let world = World::book_trip()?;
    let status = world.qbox.admin().json("/api/v1/status")?;
    let port = status["capture"]["port"].as_u64().context("no port")?;
    let script = r"
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
        connection.sendall(b'POST /trips/7 HTTP/1.1\r\nHost: trips.default.svc:8080\r\nContent-Length: 2\r\n\r\n{}')
        print('answered', connection.recv(100))
except ConnectionResetError:
    print('reset')";
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(
            world.client.python(script, &[address, &port.to_string()])?.trim(),
            "reset"
        );
    }
    assert!(world.qbox.admin().sagas()?.is_empty());
    assert!(world.booked("7").is_empty());
    Ok(())
}

#[test]
fn who_is_not_enrolled_is_left_alone() -> Result<()> {
    let world = World::book_trip()?;
    let url = format!("http://{}:8080/trips/7", world.pod_of("trips")?.ipv4());
    let output = world
        .node
        .command("curl")
        .args([
            "-sS",
            "-X",
            "POST",
            "-H",
            "Host: trips.default.svc:8080",
            "-d",
            WISH,
            &url,
        ])
        .output()?;
    let body = json_of(&String::from_utf8(output.stdout)?)?;
    assert_eq!(body["service"], "trips");
    assert!(world.qbox.admin().sagas()?.is_empty());
    Ok(())
}

#[test]
fn a_pods_own_loopback_is_left_alone() -> Result<()> {
    let world = World::book_trip()?;
    let local = Service::start("local", vec![world.client.listen(PORT)?])?;
    let (_, body) = world.client.http([
        "-X",
        "POST",
        "-H",
        "Host: trips.default.svc:8080",
        "http://127.0.0.1:8080/trips/7",
    ])?;
    assert_eq!(json_of(&body)?["service"], "local");
    assert!(local.has("7"));
    assert!(world.qbox.admin().sagas()?.is_empty());
    Ok(())
}

/// Unless a trigger names it: then by whichever of its addresses and families. Other ports stay its own.
#[test]
fn a_pods_own_loopback_is_captured_where_a_trigger_names_it() -> Result<()> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let saga = text.replace(
        "http://trips.default.svc:8080/trips",
        "http://localhost:8080/trips",
    );
    let world = World::new(&Settings::saga(saga))?;
    let _local = Service::start(
        "local",
        vec![world.client.listen(PORT)?, world.client.listen(8081)?],
    )?;
    for (id, place) in [("7", "127.0.0.1"), ("8", "[::1]"), ("9", "127.1.2.3")] {
        let url = format!("http://{place}:8080/trips/{id}");
        let (status, body) =
            world
                .client
                .http(["-X", "POST", "-H", "Host: localhost:8080", "-d", WISH, &url])?;
        assert_saga(&world, id, status, &json_of(&body)?)?;
        let (_, body) = world.client.http([&url])?;
        let body = json_of(&body)?;
        assert_eq!(body["service"], "local", "{url}");
        let url = format!("http://{place}:8081/trips/{id}");
        let (_, body) = world
            .client
            .http(["-X", "POST", "-H", "Host: localhost:8080", &url])?;
        assert_eq!(json_of(&body)?["service"], "local", "{url}");
    }
    assert_eq!(world.qbox.admin().sagas()?.len(), 3);
    Ok(())
}

/// A pod that is younger than Qbox.
#[test]
fn a_new_pod_is_found() -> Result<()> {
    let world = World::book_trip()?;
    let young = world.node.pod("young")?;
    wait_for("the new pod to be captured", DEADLINE, || {
        // Its first socket makes it known; that connection itself may still go straight through.
        young.http([TRIP])?;
        Ok(world.qbox.admin().has_pod("young")?.then_some(()))
    })?;
    let (status, body) = young.http(["-X", "POST", TRIP, "-d", WISH])?;
    assert_saga(&world, "7", status, &json_of(&body)?)?;
    drop(young);
    wait_for("the dead pod to be forgotten", DEADLINE, || {
        Ok((!world.qbox.admin().has_pod("young")?).then_some(()))
    })
}

/// Two Qboxes, each with a cgroup of its own, know nothing of each other.
#[test]
fn another_nodes_pods_are_left_alone() -> Result<()> {
    let _world = World::book_trip()?;
    let other = Node::new()?;
    let trips = other.pod("trips")?;
    let service = Service::start("trips", vec![trips.listen(PORT)?])?;
    let client = other.pod("client")?;
    let (_, body) = client.http(["-X", "POST", TRIP, "-d", WISH])?;
    assert_eq!(json_of(&body)?["service"], "trips");
    assert!(service.has("7"));
    Ok(())
}

/// The command of the README: in a captured pod, by its name.
#[test]
fn qbox_exec_runs_a_command_in_a_pod() -> Result<()> {
    let world = World::book_trip()?;
    let output = std::process::Command::new(qbox_tests::binary()?)
        .args(["exec", "--pod", "client", "--socket"])
        .arg(world.qbox.socket())
        .args(["--", "curl", "-sS", "-X", "POST", TRIP, "-d", WISH])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_saga(&world, "7", 201, &json_of(&text)?)
}

/// UDP to the same address and port, there and back.
#[test]
fn udp_is_left_alone() -> Result<()> {
    const CLIENT: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.connect(("trips", 8080))
s.send(b"ping")
print(s.recv(100).decode())
"#;
    let world = World::book_trip()?;
    let echo = world
        .pod_of("trips")?
        .namespace()
        .run(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))?;
    echo.set_read_timeout(Some(DEADLINE))?;
    let server = thread::spawn(move || -> Result<_> {
        let mut buffer = [0; 100];
        let (length, peer) = echo.recv_from(&mut buffer)?;
        echo.send_to(&buffer[..length], peer)?;
        Ok(peer.ip())
    });
    assert_eq!(world.client.python(CLIENT, &[])?, "ping\n");
    let peer = server
        .join()
        .map_err(|_| anyhow::anyhow!("the server's part panicked"))??;
    assert_eq!(peer, world.client.ipv4());
    Ok(())
}
