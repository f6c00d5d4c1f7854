//! 100,000 captured connections in 50 pods, as fast as the machine opens and closes them, and what they leave behind. Errors: one went to
//! another place than it was meant for.

use super::{Worker, open_files};
use crate::node::require_root;
use crate::{PORT as CAPTURED, SERVICES, World, bpftool, map_of};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};
use std::{env, thread};

const CLIENTS: usize = 50;
const EACH: usize = 2000;

/// Requests to the hosts in turn, each on a connection of its own. Prints how many were answered by another.
///
/// # Errors
/// One is not answered.
pub fn ask(count: usize, seed: usize, hosts: &[String]) -> Result<()> {
    let mut wrong = 0;
    for number in 0..count {
        let host = hosts.get((number * 7 + seed) % hosts.len().max(1));
        let (name, address) = host
            .and_then(|host| host.split_once('='))
            .context("NAME=ADDRESS")?;
        let address: IpAddr = address.parse()?;
        let mut stream = TcpStream::connect((address, CAPTURED))?;
        write!(
            stream,
            "GET /bookings/1 HTTP/1.1\r\nHost: {name}:{CAPTURED}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.contains(&format!("\"service\":\"{name}\"")) {
            wrong += 1;
            eprintln!("{name}: {answer}");
        }
    }
    println!("{wrong}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Opens and closes them, and prints what they have left.
///
/// # Errors
/// No root, or one went to another place than it was meant for.
pub fn connections() -> Result<()> {
    require_root()?;
    let world = World::book_trip()?;
    let mut hosts = Vec::new();
    for name in SERVICES {
        hosts.push(format!("{name}={}", world.pod_of(name)?.ipv4()));
    }
    let clients = (0..CLIENTS)
        .map(|n| world.node.pod(&format!("c{n}")))
        .collect::<Result<Vec<_>>>()?;
    for client in &clients {
        world.qbox.wait_for_pod(client.name())?;
    }
    let run = |each: usize| -> Result<u64> {
        let mut workers = Vec::new();
        for (seed, client) in clients.iter().enumerate() {
            let (each, seed) = (each.to_string(), seed.to_string());
            let mut command = client.command_for(Duration::from_secs(1200), env::current_exe()?);
            command.args(["ask", &each, &seed]).args(&hosts);
            workers.push(Worker::start(command)?);
        }
        let mut wrong = 0;
        for mut worker in workers {
            wrong += worker.line()?.parse::<u64>()?;
            worker.end()?;
        }
        Ok(wrong)
    };
    // Pools, caches and buffers are what they will be.
    run(EACH / 10)?;
    let process = world.qbox.id();
    thread::sleep(Duration::from_secs(1));
    let (memory, open) = (world.qbox.resident_bytes()?, open_files(process)?);
    let began = Instant::now();
    let wrong = run(EACH)?;
    let took = began.elapsed();
    thread::sleep(Duration::from_secs(1));
    let flows = bpftool(&["map", "dump", "id", &map_of(&world.node, "FLOWS")?])?;
    let total = CLIENTS * EACH;
    println!(
        "{total} captured connections in {CLIENTS} pods, {:.0} a second:",
        total as f64 / took.as_secs_f64()
    );
    println!("| answered by another than was asked | {wrong} |\n|---|---|");
    println!(
        "| destinations left in the kernel's map | {} |",
        flows.as_array().map_or(0, Vec::len)
    );
    println!("| files before and after | {open}, {} |", open_files(process)?);
    println!(
        "| memory before and after | {:.1} MiB, {:.1} MiB |",
        memory as f64 / 1048576.0,
        world.qbox.resident_bytes()? as f64 / 1048576.0
    );
    ensure!(wrong == 0, "{wrong} wrong destinations");
    Ok(())
}
