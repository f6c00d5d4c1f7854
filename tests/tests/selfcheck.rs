//! What the capture finds out about itself: pods that are captured no more, programs that got there first, and how full its maps are.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Node, Qbox, Settings, World, bpftool, detach, ensure_bpffs, map_of, wait_for, workspace};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Within so long whatever is amiss is told.
const WITHIN: Duration = Duration::from_secs(30);

fn saga() -> Result<String> {
    Ok(std::fs::read_to_string(workspace().join(qbox_tests::BOOK_TRIP))?)
}

/// A program that is detached from outside turns Qbox not ready, within 30 seconds, and is told of each pod.
#[test]
fn a_pod_that_is_no_longer_captured_is_found_out() -> Result<()> {
    let world = World::new(&Settings::saga(saga()?))?;
    detach(&world.node, "connect4")?;
    // One after the other is looked at.
    wait_for("the client's pod to be reported", WITHIN, || {
        let ready = world.qbox.admin().get("/readyz")?;
        let said = "the pod client is no longer captured: qbox's connect4 no longer run";
        Ok((ready.status == 503 && ready.body.contains(said)).then_some(()))
    })?;
    wait_for("all pods to be reported", WITHIN, || {
        let pods = world.qbox.admin().json("/api/v1/pods")?;
        Ok((pods["pods"] == Value::Array(Vec::new())).then_some(()))
    })?;
    let metrics = world.qbox.admin().get("/metrics")?.body;
    ensure!(metrics.contains("qbox_pods{captured=\"true\"} 0"), "{metrics}");
    ensure!(world.qbox.log().contains("a pod is no longer captured"));
    Ok(())
}

/// A dead Qbox's programs, pinned to a pod's own cgroup, see its connections before those of the Qbox that captures all pods: they
/// are told in readiness, in the pods' list and as a metric, while the others' pods are not doubted.
#[test]
fn a_program_that_got_there_first_is_found_out() -> Result<()> {
    ensure_bpffs()?;
    let node = Node::new()?;
    let pods = ["client", "client-2"].map(|name| node.pod(name));
    let [client, other] = pods;
    let (client, other) = (client?, other?);
    let refuse = Settings {
        capture: "when_down = \"refuse\"\n",
        ..Settings::saga(saga()?)
    };
    let mut first = Qbox::start_in(&node, &node.cgroup().join(client.name()), &refuse)?;
    first.stop(Signal::KILL)?;
    let mut qbox = Qbox::start(&node, &Settings::saga(saga()?))?;
    qbox.wait_for_pod(other.name())?;
    let admin = qbox.admin();
    let doubts = wait_for("the doubt", WITHIN, || {
        let ready: Value = serde_json::from_str(&admin.get("/readyz")?.body)?;
        let doubts = ready["doubts"].as_array().context("no doubts")?.clone();
        Ok((!doubts.is_empty()).then_some(doubts))
    })?;
    assert_eq!(doubts.len(), 2, "connect4 and connect6: {doubts:?}");
    let said = doubts.iter().filter_map(Value::as_str);
    for doubt in said {
        ensure!(
            doubt.starts_with("the pod client: connect")
                && doubt.contains("sees its connections before Qbox's connect"),
            "{doubt}"
        );
    }
    let pods = admin.json("/api/v1/pods")?;
    let pods = pods["pods"].as_array().context("no pods")?;
    let before = |name: &str| {
        let pod = pods.iter().find(|pod| pod["name"] == name);
        pod.map(|pod| pod["before"].as_array().map_or(0, Vec::len))
    };
    assert_eq!((before("client"), before("client-2")), (Some(2), Some(0)));
    let metrics = admin.get("/metrics")?.body;
    ensure!(metrics.contains("qbox_pods_preceded 1\n"), "{metrics}");
    ensure!(metrics.contains("qbox_ready 1\n"), "{metrics}");
    ensure!(
        qbox.log()
            .contains("another program sees the pod's connections before Qbox's")
    );
    // And away with what the dead one has pinned.
    qbox.stop(Signal::TERM)?;
    let file = node.folder().join("qbox/qbox.toml");
    let text = std::fs::read_to_string(&file)?;
    let own = node.cgroup().join(client.name());
    std::fs::write(
        &file,
        text.replace(&node.cgroup().display().to_string(), &own.display().to_string()),
    )?;
    let clean = Command::new(qbox_tests::binary()?)
        .args(["clean", "--config"])
        .arg(file)
        .output()?;
    ensure!(
        clean.status.success(),
        "{}",
        String::from_utf8_lossy(&clean.stderr)
    );
    Ok(())
}

/// Connections that were turned and never accepted, and namespaces that were announced, put there from outside: both are counted at
/// the next check.
#[test]
fn the_maps_that_the_kernel_fills_are_counted() -> Result<()> {
    let world = World::book_trip()?;
    let flows = map_of(&world.node, "FLOWS")?;
    let value = vec!["0"; 24];
    for number in 1..=7 {
        let number = number.to_string();
        let mut key = vec!["0"; 32];
        key[0] = &number;
        let words = [
            &["map", "update", "id", &flows, "key"],
            &key[..],
            &["value"],
            &value,
        ]
        .concat();
        bpftool(&words)?;
    }
    let entries = |map: &str| {
        let sample = format!("qbox_ebpf_map_entries{{map=\"{map}\"}}");
        world.qbox.admin().metric(&sample)
    };
    wait_for("the flows to be counted", WITHIN, || {
        Ok((entries("flows")? == 7).then_some(()))
    })?;
    // All six pods, and what the saga's trigger names.
    assert_eq!((entries("namespaces")?, entries("destinations")?), (6, 1));
    assert_eq!(entries("events")?, 0, "every announcement is read at once");
    let status = world.qbox.admin().json("/api/v1/status")?;
    ensure!(
        status["checked"].as_u64().is_some_and(|ago| ago <= 30),
        "{status}"
    );
    let maps = status["maps"].as_array().context("no maps")?;
    let flows = maps
        .iter()
        .find(|map| map["map"] == "flows")
        .context("no flows")?;
    assert_eq!(
        (&flows["entries"], &flows["capacity"]),
        (&7.into(), &16_384.into())
    );
    // What goes on is not disturbed.
    let (status, _) = world.book("1", "{\"guest\":\"Ada\"}")?;
    assert_eq!(status, 201);
    Ok(())
}
