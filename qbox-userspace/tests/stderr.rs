//! Whoever reads the log may go away: Qbox goes on, and ends in order.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn nobody_reads_the_log_any_more() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sagas")).unwrap();
    let config = folder.path().join("qbox.toml");
    let socket = folder.path().join("admin.sock");
    let text = format!(
        "state_dir = \"state\"\n[explicit]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\n\
         [log]\nlevel = \"debug\"\n",
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut qbox = Command::new(env!("CARGO_BIN_EXE_qbox"))
        .args(["run", "--explicit", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(qbox.stderr.take().unwrap()).lines();
    let ready = log
        .find(|line| line.as_ref().unwrap().contains("listens on "))
        .unwrap()
        .unwrap();
    let address = ready.split_once("listens on ").unwrap().1;
    let address = address.split_whitespace().next().unwrap().to_owned();
    drop(log);

    // Its refused connect is logged.
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer:?}");

    let id = Pid::from_raw(i32::try_from(qbox.id()).unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(qbox.wait().unwrap().code(), Some(0));
    assert!(!socket.exists(), "the admin socket is left");
}
