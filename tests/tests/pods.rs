//! The pods themselves, before any Qbox: what the other suites stand on.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, Node, Service};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

/// `NAME` and its addresses of both families lead to a pod, and a service in it sees who asks.
#[test]
fn pods_reach_each_other_by_name_and_address() -> Result<()> {
    let node = Node::new()?;
    let hotel = node.pod("hotel")?;
    let service = Service::start("hotel", vec![hotel.listen(8080)?])?;
    let client = node.pod("client")?;
    for (host, peer) in [
        ("hotel.default.svc".to_owned(), client.ipv4()),
        (hotel.ipv4().to_string(), client.ipv4()),
        (format!("[{}]", hotel.ipv6()), client.ipv6()),
    ] {
        let url = format!("http://{host}:8080/bookings/7");
        let answer = client.curl(["-X", "PUT", &url])?.ok()?;
        ensure!(answer.contains("\"booked\":true"), "{url}: {answer}");
        let asked = service.asked().pop().context("nothing arrived")?;
        assert_eq!(asked.peer, peer, "{url}");
    }
    assert_eq!(service.ledger(), ["7"]);
    Ok(())
}

/// Scripts do what they say, on the wire and in the ledger.
#[test]
fn services_follow_their_scripts() -> Result<()> {
    let node = Node::new()?;
    let hotel = node.pod("hotel")?;
    let mut service = Service::start("hotel", vec![hotel.listen(8080)?])?;
    let client = node.pod("client")?;
    let put = |id: &str| {
        client.curl([
            "-X",
            "PUT",
            &format!("http://hotel.default.svc:8080/bookings/{id}"),
        ])
    };
    service.when_booking(Act::Refuse(409));
    put("1")?.ok()?;
    service.when_booking(Act::ServeAndReset);
    // curl's 56: "failure with receiving network data".
    assert_eq!(put("2")?.status.code(), Some(56));
    service.when_booking(Act::Serve);
    put("3")?.ok()?;
    assert_eq!(service.ledger(), ["2", "3"]);
    service.close();
    // curl's 7: "failed to connect".
    assert_eq!(put("4")?.status.code(), Some(7));
    Ok(())
}

/// A node that is dropped leaves no cgroup, no folder and no process.
#[test]
fn nothing_is_left_behind() -> Result<()> {
    let node = Node::new()?;
    let pod = node.pod("lasting")?;
    let mut sleeper = pod
        .command("sh")
        .args(["-c", "echo asleep; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(sleeper.stdout.take().context("no pipe")?).read_line(&mut line)?;
    assert_eq!(line, "asleep\n");
    let cgroup: PathBuf = node.cgroup().to_owned();
    let folder: PathBuf = node.folder().to_owned();
    assert!(cgroup.join("lasting").is_dir());
    drop(pod);
    drop(node);
    assert!(!cgroup.exists() && !folder.exists());
    assert!(!sleeper.wait()?.success(), "a process outlived its pod");
    Ok(())
}
