//! Pods without a network namespace of their own: on the host's network, or beside one another in one. Each is captured by
//! its cgroup, nobody else in the namespace is, and the namespace is let go of with the last of them.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, PORT, Pod, Service, World, wait_for};
use serde_json::Value;
use std::process::Command;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

fn trip(id: &str) -> String {
    format!("http://trips.default.svc:{PORT}/trips/{id}")
}

/// A booking from the pod becomes a saga, and what is no trigger is answered by the service, which sees the pod's address.
fn assert_captured(world: &World, pod: &Pod, id: &str) -> Result<()> {
    let url = trip(id);
    let (status, body) = pod.http(["-X", "POST", &url, "-d", WISH])?;
    let reply: Value = serde_json::from_str(&body)?;
    assert_eq!((status, &reply["booked"]), (201, &Value::Bool(true)), "{reply}");
    assert_eq!(world.booked(id), ["hotel", "flight", "car"]);
    let (_, body) = pod.http([&url])?;
    let answer: Value = serde_json::from_str(&body)?;
    assert_eq!(answer["service"], "trips", "{answer}");
    let asked = world
        .service("trips")?
        .asked()
        .pop()
        .context("trips wasn't asked")?;
    assert_eq!(asked.peer.to_canonical(), pod.ipv4());
    Ok(())
}

/// What a trigger is answered that curl sends, run by `command`.
fn posted(world: &World, mut curl: Command) -> Result<Value> {
    let url = format!("http://{}:{PORT}/trips/9", world.pod_of("trips")?.ipv4());
    let host = ["-H", "Host: trips.default.svc:8080"];
    let output = curl
        .args(["-sS", "-X", "POST", "-d", WISH, &url])
        .args(host)
        .output()?;
    serde_json::from_slice(&output.stdout).context("no JSON")
}

fn wait_until_known(world: &World, name: &str, known: bool) -> Result<()> {
    wait_for(&format!("{name} to be known: {known}"), DEADLINE, || {
        Ok((world.qbox.admin().has_pod(name)? == known).then_some(()))
    })
}

fn namespaces(world: &World) -> Result<u64> {
    let sample = "qbox_ebpf_map_entries{map=\"namespaces\"}";
    world.qbox.admin().metric(sample)
}

/// What listens in the node's namespace on the port of Qbox's listeners.
fn listeners(world: &World) -> Result<usize> {
    let output = world
        .node
        .command("ss")
        .args(["-Hltn", "sport = :15001"])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.lines().count())
}

#[test]
fn a_pod_on_the_hosts_network() -> Result<()> {
    let world = World::book_trip()?;
    let before = namespaces(&world)?;
    ensure!(listeners(&world)? == 0, "somebody listens on the node");
    let host = world.node.host_pod("host")?;
    wait_until_known(&world, "host", true)?;
    assert_captured(&world, &host, "1")?;
    assert_eq!(namespaces(&world)?, before + 1);
    ensure!(listeners(&world)? > 0);

    // A process of the node that is in no pod, in the very same namespace.
    let sagas = world.qbox.admin().sagas()?.len();
    assert_eq!(posted(&world, world.node.command("curl"))?["service"], "trips");
    assert_eq!(world.qbox.admin().sagas()?.len(), sagas);

    // Its loopback is the node's: left alone, as any pod's.
    let local = Service::start("local", vec![host.listen(PORT)?])?;
    let (_, body) = host.http([&format!("http://127.0.0.1:{PORT}/trips/1")])?;
    assert!(body.contains("local"), "{body}");
    drop(local);

    drop(host);
    wait_until_known(&world, "host", false)?;
    assert_eq!(namespaces(&world)?, before);
    ensure!(listeners(&world)? == 0, "the listener outlives its pod");
    // The others are none the worse.
    assert_captured(&world, &world.client, "3")
}

#[test]
fn pods_that_share_a_namespace() -> Result<()> {
    let world = World::book_trip()?;
    let before = namespaces(&world)?;
    let first = world.node.pod("first")?;
    wait_until_known(&world, "first", true)?;
    let second = world.node.pod_beside("second", &first)?;
    wait_until_known(&world, "second", true)?;
    assert_eq!(namespaces(&world)?, before + 1);
    assert_captured(&world, &first, "1")?;
    assert_captured(&world, &second, "2")?;

    // In the namespace of both, and in no enrolled cgroup.
    let sagas = world.qbox.admin().sagas()?.len();
    let answer = first.namespace().run(|| posted(&world, Command::new("curl")))?;
    assert_eq!(answer["service"], "trips");
    assert_eq!(world.qbox.admin().sagas()?.len(), sagas);

    // By its own name, though the other was there before.
    let output = Command::new(qbox_tests::binary()?)
        .args(["exec", "--pod", "second", "--socket"])
        .arg(world.qbox.socket())
        .args(["--", "cat", "/proc/self/cgroup"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        text.trim_end().contains("/second"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // The one that was first goes; the namespace, and its listener, stay for the other.
    drop(first);
    wait_until_known(&world, "first", false)?;
    wait_until_known(&world, "second", true)?;
    assert_eq!(namespaces(&world)?, before + 1);
    assert_captured(&world, &second, "4")?;
    drop(second);
    wait_until_known(&world, "second", false)?;
    wait_for("the namespace to be let go of", DEADLINE, || {
        Ok((namespaces(&world)? == before).then_some(()))
    })
}
