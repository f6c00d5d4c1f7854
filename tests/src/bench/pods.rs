//! 250 pods, each as kubelet and containerd lay it out: a slice with a sandbox, and an application in the sandbox's network. What it
//! takes until each is captured, and what all of them cost, with the Kubernetes API saying which are in and without it.

use super::{Worker, book_trip, median, open_files};
use crate::node::require_root;
use crate::process::processor_time;
use crate::{ApiPod, Authority, Cluster, DEADLINE, Node, PORT, Qbox, Settings, wait_for};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use tempfile::TempDir;

const PODS: usize = 250;
/// Of these the label is taken, and set again.
const RELABELLED: usize = 50;
const NODE: &str = "node-1";
const TREE: &str = "kubepods.slice";
/// A listener on 127.0.0.1 and Qbox's port, 15001, in proc_pid_net(5)'s `tcp`.
const LISTENS: &str = "0100007F:3A99 00000000:0000 0A";
/// What nothing happens for.
const IDLE: Duration = Duration::from_secs(60);

/// Makes them, prints what they took, and takes them away again.
///
/// # Errors
/// No root, or one is not captured.
pub fn pods() -> Result<()> {
    require_root()?;
    for api in [false, true] {
        measure(api)?;
    }
    Ok(())
}

/// In a new network namespace with nothing but a loopback: whatever is not captured has no way to go. Prints how long it took
/// from the first socket to a connect that is captured, in microseconds.
///
/// # Errors
/// It isn't captured.
pub fn connects() -> Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "no loopback");
    let to = SockAddr::from(SocketAddr::from(([10, 9, 9, 9], PORT)));
    let began = Instant::now();
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if socket.connect(&to).is_ok() {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "never captured");
        thread::sleep(Duration::from_micros(200));
    }
    println!("{}", began.elapsed().as_micros());
    stay()
}

/// As a sandbox: makes no socket.
///
/// # Errors
/// Its input can't be read.
pub fn stays() -> Result<()> {
    println!("there");
    stay()
}

/// Until its input ends.
fn stay() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct Made {
    sandbox: Worker,
    process: u32,
    application: Child,
}

/// The node, its API, and a Qbox.
struct Stage {
    qbox: Qbox,
    cluster: Option<Cluster>,
    node: Node,
    _folder: TempDir,
}

impl Stage {
    fn new(api: bool) -> Result<Self> {
        let node = Node::new()?;
        let folder = tempfile::tempdir()?;
        let mut settings = book_trip()?;
        let cluster = match api {
            true => Some(cluster(&node, folder.path(), &mut settings)?),
            false => None,
        };
        let qbox = Qbox::start_in(&node, &node.cgroup().join(TREE), &settings)?;
        Ok(Self {
            qbox,
            cluster,
            node,
            _folder: folder,
        })
    }

    fn pod(&self, number: usize) -> PathBuf {
        let name = format!("kubepods-burstable-pod{}.slice", uid(number).replace('-', "_"));
        self.node
            .cgroup()
            .join(TREE)
            .join("kubepods-burstable.slice")
            .join(name)
    }

    /// Makes one; how long it took to be captured, in milliseconds, from its first socket or, where it makes none, from before its
    /// loopback was brought up.
    fn make(&self, number: usize) -> Result<(Made, f64)> {
        if let Some(cluster) = &self.cluster {
            cluster.put(&told(number, true));
        }
        let connects = number % 2 == 1;
        let sandbox = container(&self.pod(number), "sandbox")?;
        // In the node's network, as a runtime's process is before it is in the pod's.
        let mut command = self.node.command("sh");
        command
            .args([
                "-c",
                r#"echo $$ > "$0/cgroup.procs" && exec unshare --net -- "$@""#,
            ])
            .arg(&sandbox)
            .arg(env::current_exe()?)
            .arg(if connects { "connects" } else { "stays" })
            .process_group(0);
        let mut worker = Worker::start(command)?;
        let process = worker.id();
        let took = match (worker.line()?.as_str(), connects) {
            (micros, true) => micros.parse::<f64>()? / 1000.0,
            (_, false) => {
                let began = Instant::now();
                // As what connects a pod's network does, from outside.
                let mut up = inside(process);
                let up = up.args(["ip", "link", "set", "lo", "up"]).status()?;
                ensure!(up.success(), "no loopback");
                until(process, true)?;
                began.elapsed().as_secs_f64() * 1000.0
            }
        };
        let application = container(&self.pod(number), "application")?;
        let application = inside(process)
            .args(["sh", "-c", r#"echo $$ > "$0/cgroup.procs" && exec sleep 3600"#])
            .arg(application)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        let made = Made {
            sandbox: worker,
            process,
            application,
        };
        Ok((made, took))
    }

    /// Until all are listed, and nothing else is any more: between a runtime's process and its namespace there are short-lived ones.
    fn all_captured(&self) -> Result<()> {
        wait_for("the pods, and nothing else", DEADLINE, || {
            let pods = self.qbox.admin().json("/api/v1/pods")?;
            let count = pods["pods"].as_array().map_or(0, Vec::len);
            ensure!(count >= PODS, "{count} of {PODS} are captured");
            Ok((count == PODS).then_some(()))
        })
    }

    /// Of how many of these pods the label is set again, and how long each waited to be captured, in milliseconds.
    fn relabel(&self, made: &[Made]) -> Result<Vec<f64>> {
        let cluster = self.cluster.as_ref().context("no API")?;
        for number in 0..made.len() {
            cluster.put(&told(number, false));
        }
        for pod in made {
            until(pod.process, false)?;
        }
        let mut took = Vec::new();
        for (number, pod) in made.iter().enumerate() {
            let began = Instant::now();
            cluster.put(&told(number, true));
            until(pod.process, true)?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(took)
    }
}

/// An API as a pod sees it: with TLS, at an address of the node's.
fn cluster(node: &Node, folder: &Path, settings: &mut Settings) -> Result<Cluster> {
    let address = Ipv4Addr::new(10, 88, 0, 1);
    let authority = Authority::new("kubernetes")?;
    let shown = authority.certify(&address.to_string(), false)?.server(None)?;
    let cluster = node.namespace().run(|| {
        let listener = TcpListener::bind((address, 0))?;
        Cluster::start(listener, "secret", Some(shown))
    })?;
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let (ca, token) = (file("ca.crt", &authority.pem())?, file("token", "secret")?);
    settings.extra = format!(
        "[kubernetes]\nenroll = \"qbox.dev/saga=enabled\"\nnode = \"{NODE}\"\nserver = {:?}\nca_file = {ca:?}\ntoken_file = {token:?}\n",
        cluster.url()
    );
    Ok(cluster)
}

fn uid(number: usize) -> String {
    format!("0d1c2b3a-0000-1111-2222-{number:012}")
}

fn told(number: usize, labelled: bool) -> ApiPod {
    let pod = ApiPod::new(&uid(number), &format!("pod-{number}"), NODE);
    match labelled {
        true => pod.label("qbox.dev/saga", "enabled"),
        false => pod,
    }
}

/// A container's cgroup, made when the container is, as runtimes do.
fn container(pod: &Path, which: &str) -> Result<PathBuf> {
    let folder = pod.join(format!("cri-containerd-{which}.scope"));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a process's descriptors are.
fn links(process: u32) -> String {
    let Ok(found) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return String::new();
    };
    let targets = found
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let targets: Vec<_> = targets.map(|target| target.display().to_string()).collect();
    targets.join(" ")
}

/// Runs in a process's network.
fn inside(process: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{process}/ns/net")).arg("--");
    command
}

/// Waits until Qbox listens in a process's network, or doesn't, without making a socket there.
fn until(process: u32, listens: bool) -> Result<()> {
    let began = Instant::now();
    while fs::read_to_string(format!("/proc/{process}/net/tcp"))?.contains(LISTENS) != listens {
        if began.elapsed() > DEADLINE {
            bail!("Qbox listens in a pod: {}", !listens);
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn row(what: &str, took: &[f64]) {
    let longest = took.iter().copied().fold(0.0, f64::max);
    println!(
        "| {what} | median {:.1} ms, longest {longest:.1} ms |",
        median(took.iter().copied())
    );
}

fn measure(api: bool) -> Result<()> {
    let stage = Stage::new(api)?;
    let qbox = &stage.qbox;
    let (memory, open) = (qbox.resident_bytes()?, open_files(qbox.id())?);
    let mut made = Vec::new();
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..PODS {
        let (pod, waited) = stage.make(number)?;
        made.push(pod);
        took[number % 2].push(waited);
    }
    stage.all_captured()?;
    let each = qbox.resident_bytes()?.saturating_sub(memory) / PODS as u64;
    let files_each = (open_files(qbox.id())? - open) as f64 / PODS as f64;
    let before = processor_time(&[qbox.id()])?;
    thread::sleep(IDLE);
    let idle = (processor_time(&[qbox.id()])? - before) / IDLE.as_secs_f64() / 1e4;
    match api {
        true => println!("{PODS} pods, enrolled by their labels:"),
        false => println!("{PODS} pods:"),
    }
    println!("| | |\n|---|---|");
    let [sandboxes, sockets] = &took;
    row("from a sandbox's network to being captured", sandboxes);
    row("from a pod's first socket to being captured", sockets);
    if api {
        let took = stage.relabel(made.get(..RELABELLED).context("too few pods")?)?;
        row("from a label to being captured", &took);
    }
    println!("| memory for each | {:.1} KiB |", each as f64 / 1024.0);
    println!("| files for each | {files_each:.1} |");
    println!("| CPU while idle | {idle:.3} % of one |");
    let gone = Instant::now();
    for pod in made {
        let Made {
            sandbox,
            mut application,
            ..
        } = pod;
        application.kill()?;
        application.wait()?;
        sandbox.end()?;
    }
    wait_for("all to be let go of", DEADLINE, || {
        let pods = qbox.admin().json("/api/v1/pods")?;
        Ok((pods["pods"] == Value::Array(Vec::new())).then_some(()))
    })?;
    let listed = gone.elapsed().as_secs_f64();
    // A handle of Qbox's own namespace, opened with the first pod, stays.
    let closed = wait_for("their files to be closed", DEADLINE, || {
        Ok((open_files(qbox.id())? <= open + 1).then_some(()))
    });
    closed.with_context(|| format!("of {open} files before these are left: {}", links(qbox.id())))?;
    let closed = gone.elapsed().as_secs_f64();
    println!("| all gone, and no longer listed, within | {listed:.1} s |");
    println!("| all of their files closed within | {closed:.1} s |");
    Ok(())
}
