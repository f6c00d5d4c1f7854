//! What becomes of the pods' connections while Qbox is down, or does not know a pod yet: `when_down` and `unknown`.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, Node, Pod, Qbox, Settings, World, binary, ensure_bpffs, wait_for};
use rustix::process::Signal;
use std::process::Command;

const WISH: &str = r#"{"guest":"Ada","car":"small"}"#;

/// The saga of `config/`, with more keys for `[capture]`.
fn settings(capture: &'static str) -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    Ok(Settings {
        capture,
        ..Settings::saga(text)
    })
}

/// What each connect ends with: to a trigger's destination by IPv4 and by IPv6, and to a port that no trigger names.
const CONNECTS: &str = r#"
import errno, socket, sys
ends = []
for host, port in ((sys.argv[1], 8080), (sys.argv[2], 8080), (sys.argv[1], 8081)):
    try:
        c = socket.create_connection((host, port), 10)
        ends.append(c.getpeername()[0])
    except OSError as e:
        ends.append(errno.errorcode[e.errno])
print(*ends)
"#;

fn connects(from: &Pod, world: &World) -> Result<String> {
    let trips = world.pod_of("trips")?;
    let addresses = [trips.ipv4().to_string(), trips.ipv6().to_string()];
    let [v4, v6] = &addresses;
    Ok(from.python(CONNECTS, &[v4, v6])?.trim().to_owned())
}

/// What `connects` says where nothing is refused.
fn open(world: &World) -> Result<String> {
    let trips = world.pod_of("trips")?;
    Ok(format!("{} {} {}", trips.ipv4(), trips.ipv6(), trips.ipv4()))
}

/// And where what triggers could match is, and nothing else.
fn shut(world: &World) -> Result<String> {
    Ok(format!(
        "ECONNREFUSED ECONNREFUSED {}",
        world.pod_of("trips")?.ipv4()
    ))
}

fn clean(node: &Node) -> Result<String> {
    let file = node.folder().join("qbox/qbox.toml");
    let output = Command::new(binary()?)
        .arg("clean")
        .arg("--config")
        .arg(file)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn refused_from_a_kill_to_the_next_start_and_from_a_stop_to_a_clean() -> Result<()> {
    ensure_bpffs()?;
    let settings = settings("when_down = \"refuse\"\n")?;
    let mut world = World::new(&settings)?;
    assert_eq!(world.book("1", WISH)?.0, 201);
    world.qbox.stop(Signal::KILL)?;
    assert_eq!(connects(&world.client, &world)?, shut(&world)?);

    world.qbox = Qbox::start(&world.node, &settings)?;
    world.qbox.wait_for_pod(world.client.name())?;
    let log = world.qbox.log();
    ensure!(
        log.contains("replaced the programs that an earlier run had left"),
        "{log}"
    );
    assert_eq!(world.book("2", WISH)?.0, 201);
    assert_eq!(connects(&world.client, &world)?, open(&world)?);
    let running = clean(&world.node).unwrap_err().to_string();
    ensure!(running.contains("a Qbox runs"), "{running}");
    assert_eq!(world.book("3", WISH)?.0, 201);

    let status = world.qbox.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", world.qbox.log());
    assert_eq!(connects(&world.client, &world)?, shut(&world)?);
    let said = clean(&world.node)?;
    ensure!(said.contains("removed pinned programs"), "{said}");
    assert_eq!(connects(&world.client, &world)?, open(&world)?);
    assert_eq!(clean(&world.node)?, "nothing to remove\n");
    Ok(())
}

/// The next start need not refuse: then nothing of what the one before it had pinned is left.
#[test]
fn a_start_in_direct_mode_takes_the_refusal_away() -> Result<()> {
    ensure_bpffs()?;
    let mut world = World::new(&settings("when_down = \"refuse\"\n")?)?;
    world.qbox.stop(Signal::KILL)?;
    let direct = settings("when_down = \"direct\"\n")?;
    world.qbox = Qbox::start(&world.node, &direct)?;
    world.qbox.wait_for_pod(world.client.name())?;
    assert_eq!(world.book("1", WISH)?.0, 201);
    world.qbox.stop(Signal::KILL)?;
    wait_for("nothing to be refused", DEADLINE, || {
        Ok((connects(&world.client, &world)? == open(&world)?).then_some(()))
    })?;
    Ok(())
}

/// Of a pod that is made while Qbox can't notice it.
fn from_an_unknown_pod(capture: &'static str) -> Result<(World, String)> {
    let world = World::new(&settings(capture)?)?;
    world.qbox.signal(Signal::STOP)?;
    let late = world.node.pod("late")?;
    let seen = connects(&late, &world);
    world.qbox.signal(Signal::CONT)?;
    let seen = seen?;
    world.qbox.wait_for_pod("late")?;
    assert_eq!(connects(&late, &world)?, open(&world)?, "it is known by now");
    Ok((world, seen))
}

#[test]
fn a_pod_that_is_not_known_yet_passes() -> Result<()> {
    let (world, seen) = from_an_unknown_pod("")?;
    assert_eq!(seen, open(&world)?);
    let metrics = world.qbox.admin().get("/metrics")?.body;
    ensure!(
        metrics.contains("qbox_captured_connections_total{fate=\"unenrolled\"} 2"),
        "{metrics}"
    );
    ensure!(
        metrics.contains("qbox_captured_connections_total{fate=\"refused\"} 0"),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn a_pod_that_is_not_known_yet_is_refused_where_that_is_asked_for() -> Result<()> {
    let (world, seen) = from_an_unknown_pod("unknown = \"refuse\"\n")?;
    assert_eq!(seen, shut(&world)?);
    let metrics = world.qbox.admin().get("/metrics")?.body;
    ensure!(
        metrics.contains("qbox_captured_connections_total{fate=\"refused\"} 2"),
        "{metrics}"
    );
    Ok(())
}

/// Pinned programs of a dead Qbox on the cgroup above stand for those of somebody else: to a Qbox below they are.
#[test]
fn programs_of_others_are_named() -> Result<()> {
    ensure_bpffs()?;
    let node = Node::new()?;
    let mut other = Qbox::start(&node, &settings("when_down = \"refuse\"\n")?)?;
    other.stop(Signal::KILL)?;
    let below = node.cgroup().join("below");
    let mut qbox = Qbox::start_in(&node, &below, &settings("")?)?;
    let status = qbox.admin().json("/api/v1/status")?;
    let others = status["capture"]["others"].as_array().context("no list")?;
    assert_eq!(others.len(), 6, "{status}");
    let connect = others
        .iter()
        .find(|other| other["hook"] == "connect4")
        .context("no connect4")?;
    assert_eq!(connect["program"], "connect4");
    assert_eq!(connect["cgroup"], node.cgroup().display().to_string());
    assert_eq!(connect["first"], false);
    let log = qbox.log();
    ensure!(
        log.contains("another program runs on this hook, after Qbox's"),
        "{log}"
    );
    qbox.stop(Signal::TERM)?;
    let file = node.folder().join("qbox/qbox.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(
        &file,
        text.replace(&below.display().to_string(), &node.cgroup().display().to_string()),
    )?;
    ensure!(clean(&node)?.contains("removed pinned programs"));
    Ok(())
}
