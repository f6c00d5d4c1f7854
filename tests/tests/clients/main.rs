//! Programs that know nothing of Qbox, in a pod: each one's trigger becomes a saga, and what is no trigger reaches the
//! service from the pod's own address, over IPv4 and IPv6, however a program likes to connect.
//!
//! The clients are files beside this one. `cargo xtask test` installs the libraries that they use (`requirements.txt`,
//! `package.json`) in a folder of its own and names it in `QBOX_TEST_TOOLS`.

use anyhow::{Context, Result, ensure};
use qbox_tests::{BOOK_TRIP, Pod, Settings, World, workspace};
use serde_json::Value;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// Where the clients' libraries are.
fn tools() -> Result<PathBuf> {
    let folder =
        env::var_os("QBOX_TEST_TOOLS").map_or_else(|| workspace().join("target/test-tools"), PathBuf::from);
    ensure!(
        folder.join("python/bin/python").exists(),
        "the clients' libraries are not in {}: `cargo xtask test` installs them",
        folder.display()
    );
    Ok(folder)
}

fn beside(name: &str) -> String {
    let folder = workspace().join("tests/tests/clients");
    folder.join(name).to_string_lossy().into_owned()
}

/// The booking saga, and the same for a name that has an IPv6 address alone.
fn world() -> Result<World> {
    let saga = fs::read_to_string(workspace().join(BOOK_TRIP))?;
    let six = saga
        .replace("//trips.default.svc", "//trips6.default.svc")
        .replace("\"book-trip\"", "\"book-trip-6\"");
    let world = World::new(&Settings::sagas([saga, six]))?;
    let mut hosts = OpenOptions::new().append(true).open(world.node.hosts())?;
    writeln!(hosts, "{} trips6.default.svc", world.pod_of("trips")?.ipv6())?;
    Ok(world)
}

fn json_of(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text:?}"))
}

fn assert_saga(world: &World, id: &str, status: &Value, reply: &Value) -> Result<()> {
    ensure!(
        *status == 201 && reply["booked"] == true,
        "no saga: {status} {reply}"
    );
    assert_eq!(world.booked(id), ["hotel", "flight", "car"]);
    Ok(())
}

/// Two triggers and two others, over both families, by one command.
fn client(world: &World, name: &str, command: &[&str]) -> Result<()> {
    let (four, six) = (format!("{name}-4"), format!("{name}-6"));
    let url = |host, id| format!("http://{host}.default.svc:8080/trips/{id}");
    let asked = [
        format!("POST {}", url("trips", &four)),
        format!("GET {}", url("trips", &four)),
        format!("POST {}", url("trips6", &six)),
        format!("GET {}", url("trips6", &six)),
    ];
    let words = command.iter().copied().chain([WISH]);
    let words = words.chain(asked.iter().map(String::as_str));
    let lines = world.client.run(words)?.ok()?;
    let answers = lines.lines().map(json_of).collect::<Result<Vec<_>>>()?;
    ensure!(answers.len() == 4, "{lines}");
    for (trigger, other, id, own) in [
        (&answers[0], &answers[1], &four, world.client.ipv4()),
        (&answers[2], &answers[3], &six, world.client.ipv6()),
    ] {
        assert_saga(world, id, &trigger[0], &trigger[1])?;
        ensure!(
            other[0] == 200 || other[0] == 404,
            "what is no trigger was answered by {other}"
        );
        assert_eq!(other[1]["service"], "trips");
        assert_eq!(other[1]["peer"], own.to_string());
    }
    Ok(())
}

#[test]
fn every_client() -> Result<()> {
    let tools = tools()?;
    let python = tools.join("python/bin/python").to_string_lossy().into_owned();
    let modules = tools.join("node/node_modules").to_string_lossy().into_owned();
    let go = go_client(&tools)?;
    let world = world()?;
    let clients: [(&str, &[&str]); 7] = [
        ("requests", &[&python, &beside("requests_client.py")]),
        ("httpx", &[&python, &beside("httpx_client.py")]),
        ("aiohttp", &[&python, &beside("aiohttp_client.py")]),
        ("fetch", &["node", &beside("fetch_client.mjs")]),
        ("undici", &["node", &beside("undici_client.mjs"), &modules]),
        (
            "java",
            &["java", "-XX:TieredStopAtLevel=1", &beside("Client.java")],
        ),
        ("go", &[&go]),
    ];
    for (name, command) in clients {
        client(&world, name, command).with_context(|| name.to_owned())?;
    }
    assert_eq!(world.qbox.admin().sagas()?.len(), 2 * clients.len());
    Ok(())
}

/// Builds the client; the toolchain keeps what it has built of the standard library beside it.
fn go_client(tools: &std::path::Path) -> Result<String> {
    let built = tools.join("go-client");
    let output = Command::new(tools.join("python/bin/go"))
        .args(["build", "-o"])
        .arg(&built)
        .arg(beside("client.go"))
        .env("GOCACHE", tools.join("go-cache"))
        .env("GOPATH", tools.join("go-path"))
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .output()
        .context("can't start Go")?;
    ensure!(
        output.status.success(),
        "the Go client does not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(built.to_string_lossy().into_owned())
}

fn connects(world: &World, pod: &Pod) -> Result<Vec<Value>> {
    let trips = world.pod_of("trips")?;
    let addresses = [trips.ipv4(), trips.ipv6(), pod.ipv4(), pod.ipv6()].map(|address| address.to_string());
    let program = beside("connects.py");
    let words = ["python3", &program, WISH].into_iter();
    let lines = pod.run(words.chain(addresses.iter().map(String::as_str)))?.ok()?;
    lines.lines().map(json_of).collect()
}

fn assert_every_way(world: &World, pod: &Pod) -> Result<()> {
    let lines = connects(world, pod)?;
    ensure!(lines.len() == 36, "{} ways", lines.len());
    let mut wrong = Vec::new();
    for line in &lines {
        let (name, id) = (
            line[0].as_str().unwrap_or_default(),
            line[1].as_str().unwrap_or_default(),
        );
        let body = &line[4];
        let right = if name.ends_with("POST") {
            line[2] == 201 && world.booked(id) == ["hotel", "flight", "car"]
        } else {
            let own = match name.contains("AF_INET6") && !name.contains("mapped") {
                true => pod.ipv6(),
                false => pod.ipv4(),
            };
            body["service"] == "trips" && body["peer"] == own.to_string()
        };
        if !right || line[3] != true {
            wrong.push(line.to_string());
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} ways went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn every_way_to_connect() -> Result<()> {
    let world = world()?;
    assert_every_way(&world, &world.client)
}

/// The service's own pod, by its own address.
#[test]
fn a_pod_that_calls_itself() -> Result<()> {
    let world = world()?;
    world.qbox.wait_for_pod("trips")?;
    assert_every_way(&world, world.pod_of("trips")?)
}
