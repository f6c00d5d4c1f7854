//! `qbox.toml`: how this node's Qbox runs. Every key has a default, so an empty file is a whole configuration;
//! `config/qbox.toml` documents each. Knows nothing of what a saga file holds.

use super::diagnostic::Code;
use super::kubernetes::{self, Kubernetes};
use super::service::{self, Service};
use super::walk::{Node, Sink, Table};
use crate::keys::Keys;
use crate::saga;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// `qbox.toml`, checked, its defaults filled in and its paths made relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the saga files are.
    pub sagas: PathBuf,
    /// How long a stopping Qbox waits for sagas and connections in flight.
    pub grace: Duration,
    /// Where the journal is kept. One Qbox at a time.
    pub state_dir: PathBuf,
    /// `[journal]`.
    pub journal: Journal,
    /// `[capture]`.
    pub capture: Capture,
    /// `[kubernetes]`.
    pub kubernetes: Kubernetes,
    /// `[explicit]`.
    pub explicit: Explicit,
    /// `[limits]`.
    pub limits: Limits,
    /// `[proxy]`.
    pub proxy: Proxy,
    /// `[upstream]`.
    pub upstream: Upstream,
    /// `[admin]`.
    pub admin: Admin,
    /// `[secrets]`.
    pub secrets: Secrets,
    /// `[log]`.
    pub log: Log,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
}

/// `[journal]`: what is kept of sagas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// `store`.
    pub store: Store,
    /// How long finished sagas are kept, and their callers' keys with them.
    pub keep: Duration,
}

/// `journal.store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// On disk, in `state_dir`: sagas survive a crash.
    Disk,
    /// In this process: they don't. For trying Qbox out.
    Memory,
}

/// `[capture]`: how requests come to Qbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// `mode`.
    pub mode: CaptureMode,
    /// `cgroup`: the cgroup v2 directories above the pods' own, each made if it is missing, or patterns of them.
    pub cgroups: Vec<PathBuf>,
    /// The port of the listeners inside the pods' namespaces, on their loopback addresses.
    pub port: u16,
    /// `when_down`.
    pub when_down: WhenDown,
    /// `unknown`.
    pub unknown: Unknown,
    /// `pass`.
    pub pass: Vec<Pass>,
}

/// One of `capture.pass`: addresses at which nothing is captured, unless a trigger names them itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Any address of them; no mapped IPv4 one.
    pub address: IpAddr,
    /// How many of its bits count.
    pub prefix: u8,
    /// `None`: on any port.
    pub port: Option<u16>,
}

/// `capture.when_down`: what becomes of connections that a trigger could match while Qbox is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// They go to the service itself.
    Direct,
    /// They are refused, from the moment at which Qbox ends, in whatever way, to the next start.
    Refuse,
}

/// `capture.unknown`: what becomes of connections that a trigger could match, of a pod so new that Qbox doesn't listen in it
/// yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They go to the service itself.
    Pass,
    /// They are refused.
    Refuse,
}

/// `capture.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// The kernel turns the pods' sockets.
    Ebpf,
    /// Clients send to a plain listening port, as to an HTTP proxy.
    Explicit,
}

/// `[explicit]`: the plain listening port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explicit {
    /// Its address.
    pub listen: SocketAddr,
}

/// `[limits]`. When one is reached the answer is 413 (bodies), 431 or 414 (heads), 508 (depth) or 503 with Retry-After.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a trigger's body.
    pub trigger_body: usize,
    /// Bytes kept of a response's body; an expression that reads a longer one has no value.
    pub response_body: usize,
    /// Bytes of a message's head.
    pub head: usize,
    /// Connections open at once, over all pods.
    pub connections: usize,
    /// Streams open at once on one HTTP/2 connection.
    pub http2_streams: usize,
    /// Sagas running or compensating at once.
    pub sagas_in_flight: usize,
    /// Steps of one saga at once.
    pub steps_in_flight: usize,
    /// Idle connections kept for each upstream address.
    pub upstream_connections: usize,
    /// How deep sagas nest.
    pub depth: u8,
    /// Triggers that are only observed of which a record is kept; 0: none.
    pub observed: usize,
}

/// `[proxy]`: the connections from the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// How long a first line, once begun, may take before its connection is copied blindly.
    pub detect_timeout: Duration,
    /// How long a request's head, once begun, may take, and a trigger's body stall.
    pub head_timeout: Duration,
    /// How long a service may take to accept a connection.
    pub connect_timeout: Duration,
}

/// `[upstream]`: the connections to the services that sagas call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A file in the format of hosts(5) that is asked before DNS.
    pub hosts: Option<PathBuf>,
    /// How long a connect may take; an attempt's own timeout also holds.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Calls in flight to one service.
    pub concurrency: usize,
    /// How long an exchange is listened to when its attempt's time is over; zero: not at all.
    pub linger: Duration,
    /// How many are, at once.
    pub lingering: usize,
    /// `[upstream.breaker]`.
    pub breaker: Breaker,
    /// `[[upstream.service]]`.
    pub services: Vec<Service>,
}

/// `[upstream.breaker]`: when connecting to a service is given up for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failed connects in a row; 0: never.
    pub failures: u32,
    /// How long nobody tries.
    pub open_for: Duration,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The API and the page.
    pub listen: SocketAddr,
    /// The same for this machine's `qbox` commands, as a Unix socket.
    pub socket: PathBuf,
    /// A file with the token that TCP clients must know. Without one the address is a loopback address.
    pub token_file: Option<PathBuf>,
}

/// `[secrets]`: what is shown nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Names of header fields, beside those that are always secret.
    pub headers: Vec<String>,
    /// Names of fields in bodies, with those of the objects around them where that matters: `card.number`.
    pub json: Vec<String>,
    /// Names of query parameters.
    pub query: Vec<String>,
    /// The keys under which the journal keeps what a restart needs of them; `None`: it is lost by a restart.
    pub key_file: Option<PathBuf>,
}

impl Secrets {
    /// The names.
    #[must_use]
    pub fn names(&self) -> saga::Secrets {
        saga::Secrets::new(&self.headers, &self.json, &self.query)
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or tracing's filter: `info`, `qbox=debug,warn`.
    pub level: String,
    /// `format`.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`: what Qbox tells a collector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Where an OTLP collector is, without a slash at the end; spans go to `/v1/traces` below it. `None`: there are no spans.
    pub otlp: Option<String>,
}

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

impl Default for Config {
    /// What an empty file means (`sagas` beside the working directory).
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            sagas: PathBuf::from("sagas"),
            grace: 30 * SECOND,
            state_dir: PathBuf::from("/var/lib/qbox"),
            journal: Journal {
                store: Store::Disk,
                keep: 72 * 3600 * SECOND,
            },
            capture: Capture {
                mode: CaptureMode::Ebpf,
                cgroups: vec![default_cgroup()],
                port: 15001,
                when_down: WhenDown::Direct,
                unknown: Unknown::Pass,
                pass: Vec::new(),
            },
            kubernetes: Kubernetes::default(),
            explicit: Explicit {
                listen: loopback(3001),
            },
            limits: Limits {
                trigger_body: 1 << 20,
                response_body: 1 << 20,
                head: 64 << 10,
                connections: 10_000,
                http2_streams: 4096,
                sagas_in_flight: 20_000,
                steps_in_flight: 64,
                upstream_connections: 256,
                depth: 8,
                observed: 1000,
            },
            proxy: Proxy {
                detect_timeout: SECOND,
                head_timeout: 30 * SECOND,
                connect_timeout: 10 * SECOND,
            },
            upstream: Upstream {
                hosts: None,
                connect_timeout: 5 * SECOND,
                idle_timeout: 4 * SECOND,
                concurrency: 256,
                linger: 10 * SECOND,
                lingering: 1000,
                breaker: Breaker {
                    failures: 5,
                    open_for: 5 * SECOND,
                },
                services: Vec::new(),
            },
            admin: Admin {
                listen: loopback(9901),
                socket: PathBuf::from("/run/qbox/admin.sock"),
                token_file: None,
            },
            secrets: Secrets {
                headers: saga::Secrets::HEADERS.map(str::to_owned).to_vec(),
                json: saga::Secrets::JSON.map(str::to_owned).to_vec(),
                query: saga::Secrets::QUERY.map(str::to_owned).to_vec(),
                key_file: None,
            },
            log: Log {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
            telemetry: Telemetry::default(),
        }
    }
}

/// `qbox` under the cgroup v2 root: `/sys/fs/cgroup`, or on a hybrid machine where /proc/mounts says.
fn default_cgroup() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    cgroup2_root(&mounts)
        .unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup"))
        .join("qbox")
}

/// The first cgroup2 mount of a mounts(5) text; `/sys/fs/cgroup` itself goes first.
fn cgroup2_root(mounts: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            // mounts(5) writes a space as \040; no other escape is to be expected here.
            (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
        })
        .collect();
    found.sort_by_key(|path| path != Path::new("/sys/fs/cgroup"));
    found.into_iter().next()
}

/// Reads the document; mistakes go to the sink, and a default stands in for what is wrong.
pub(super) fn config(sink: &Sink, root: &Table<'_>) -> Config {
    let folder = Path::new(&sink.file.name)
        .parent()
        .unwrap_or(Path::new(""))
        .to_owned();
    let mut config = Config {
        sagas: folder.join("sagas"),
        ..Config::default()
    };
    set(&mut config.sagas, root.get("sagas"), |n| {
        Some(folder.join(n.filled()?.value))
    });
    set(&mut config.grace, root.get("grace"), |n| {
        n.duration(Duration::ZERO)
    });
    set(&mut config.state_dir, root.get("state_dir"), |n| {
        Some(folder.join(n.filled()?.value))
    });
    section(root, "journal", |t| {
        let stores = [("disk", Store::Disk), ("memory", Store::Memory)];
        set(&mut config.journal.store, t.get("store"), |n| n.choice(&stores));
        set(&mut config.journal.keep, t.get("keep"), |n| n.duration(SECOND));
    });
    section(root, "capture", |t| {
        let capture = &mut config.capture;
        let modes = [("ebpf", CaptureMode::Ebpf), ("explicit", CaptureMode::Explicit)];
        set(&mut capture.mode, t.get("mode"), |n| n.choice(&modes));
        set(&mut capture.cgroups, t.get("cgroup"), |n| cgroups(sink, &n));
        set(&mut capture.port, t.get("port"), |n| {
            u16::try_from(n.integer(1, 65535)?).ok()
        });
        let ways = [("direct", WhenDown::Direct), ("refuse", WhenDown::Refuse)];
        set(&mut capture.when_down, t.get("when_down"), |n| n.choice(&ways));
        let ways = [("pass", Unknown::Pass), ("refuse", Unknown::Refuse)];
        set(&mut capture.unknown, t.get("unknown"), |n| n.choice(&ways));
        set(&mut capture.pass, t.get("pass"), |n| {
            let passes = n.list("[\"10.1.0.0/16\", \"10.0.0.9:8080\"]")?;
            passes.iter().map(|one| pass(sink, one)).collect()
        });
    });
    section(root, "kubernetes", |t| {
        config.kubernetes = kubernetes::kubernetes(sink, t, &folder);
    });
    section(root, "explicit", |t| {
        set(&mut config.explicit.listen, t.get("listen"), |n| {
            address(sink, &n)
        })
    });
    section(root, "limits", |t| {
        let limits = &mut config.limits;
        let bytes = |n: Node<'_>| usize::try_from(n.size(0, GIB)?).ok();
        let count = |n: Node<'_>| usize::try_from(n.integer(1, 10_000_000)?).ok();
        set(&mut limits.trigger_body, t.get("trigger_body"), bytes);
        set(&mut limits.response_body, t.get("response_body"), bytes);
        set(&mut limits.head, t.get("head"), |n| {
            usize::try_from(n.size(KIB, 16 * KIB * KIB)?).ok()
        });
        set(&mut limits.connections, t.get("connections"), count);
        set(&mut limits.http2_streams, t.get("http2_streams"), count);
        set(&mut limits.sagas_in_flight, t.get("sagas_in_flight"), count);
        set(&mut limits.steps_in_flight, t.get("steps_in_flight"), count);
        set(
            &mut limits.upstream_connections,
            t.get("upstream_connections"),
            count,
        );
        set(&mut limits.depth, t.get("depth"), |n| {
            u8::try_from(n.integer(1, 255)?).ok()
        });
        set(&mut limits.observed, t.get("observed"), |n| {
            usize::try_from(n.integer(0, 100_000)?).ok()
        });
    });
    section(root, "proxy", |t| {
        let proxy = &mut config.proxy;
        set(&mut proxy.detect_timeout, t.get("detect_timeout"), |n| {
            n.duration(MILLISECOND)
        });
        set(&mut proxy.head_timeout, t.get("head_timeout"), |n| {
            n.duration(MILLISECOND)
        });
        set(&mut proxy.connect_timeout, t.get("connect_timeout"), |n| {
            n.duration(MILLISECOND)
        });
    });
    section(root, "upstream", |t| {
        let upstream = &mut config.upstream;
        set(&mut upstream.hosts, t.get("hosts"), |n| {
            Some(Some(folder.join(n.filled()?.value)))
        });
        set(&mut upstream.connect_timeout, t.get("connect_timeout"), |n| {
            n.duration(MILLISECOND)
        });
        set(&mut upstream.idle_timeout, t.get("idle_timeout"), |n| {
            n.duration(MILLISECOND)
        });
        set(&mut upstream.concurrency, t.get("concurrency"), |n| {
            usize::try_from(n.integer(1, 1_000_000)?).ok()
        });
        set(&mut upstream.linger, t.get("linger"), |n| {
            n.duration(Duration::ZERO)
        });
        set(&mut upstream.lingering, t.get("lingering"), |n| {
            usize::try_from(n.integer(0, 1_000_000)?).ok()
        });
        upstream.services = service::services(sink, t, &folder);
        let breaker = t.get("breaker");
        if let Some(t) = breaker.and_then(|node| node.table("[upstream.breaker]")) {
            let breaker = &mut upstream.breaker;
            set(&mut breaker.failures, t.get("failures"), |n| {
                u32::try_from(n.integer(0, 1_000_000)?).ok()
            });
            set(&mut breaker.open_for, t.get("open_for"), |n| {
                n.duration(MILLISECOND)
            });
            t.finish();
        }
    });
    section(root, "admin", |t| {
        set(&mut config.admin.token_file, t.get("token_file"), |n| {
            Some(Some(folder.join(n.filled()?.value)))
        });
        let guarded = t.get("token_file").is_some();
        set(&mut config.admin.listen, t.get("listen"), |n| {
            admin_address(sink, &n, guarded)
        });
        set(&mut config.admin.socket, t.get("socket"), |n| {
            Some(PathBuf::from(n.filled()?.value))
        });
    });
    section(root, "secrets", |t| {
        let secrets = &mut config.secrets;
        set(&mut secrets.headers, t.get("headers"), |n| {
            names(sink, &n, Code::HeaderName, is_header_name)
        });
        set(&mut secrets.json, t.get("json"), |n| {
            names(sink, &n, Code::FieldPath, is_field)
        });
        // Whatever a pair's name may be.
        set(&mut secrets.query, t.get("query"), |n| {
            names(sink, &n, Code::FieldPath, |_| true)
        });
        set(&mut secrets.key_file, t.get("key_file"), |n| {
            key_file(sink, &n, &folder, &config.state_dir).map(Some)
        });
    });
    section(root, "log", |t| {
        set(&mut config.log.level, t.get("level"), |n| filter(sink, &n));
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        set(&mut config.log.format, t.get("format"), |n| n.choice(&formats));
    });
    section(root, "telemetry", |t| {
        set(&mut config.telemetry.otlp, t.get("otlp"), |n| {
            collector(sink, &n).map(Some)
        });
    });
    config
}

/// Puts what `read` finds into `place`; leaves it where the key is missing or wrong.
fn set<T>(place: &mut T, node: Option<Node<'_>>, read: impl FnOnce(Node<'_>) -> Option<T>) {
    if let Some(value) = node.and_then(read) {
        *place = value;
    }
}

/// Reads a `[name]` section and reports its unknown keys.
fn section(root: &Table<'_>, name: &'static str, read: impl FnOnce(&Table<'_>)) {
    if let Some(table) = root.get(name).and_then(|node| node.table(format!("[{name}]"))) {
        read(&table);
        table.finish();
    }
}

/// A list of names, none of them empty; `code` says that one is none.
fn names(sink: &Sink, node: &Node<'_>, code: Code, is_name: fn(&str) -> bool) -> Option<Vec<String>> {
    let mut sound = true;
    let mut names = Vec::new();
    for node in node.list("[\"api_key\", \"password\"]")? {
        let Some(text) = node.filled() else {
            sound = false;
            continue;
        };
        if !is_name(text.value) {
            let message = format!("nothing in a message can have the name `{}`", text.value);
            let help = "write the name alone, without a value or an index";
            sink.error(code, text.span.clone(), message, "", help);
            sound = false;
        }
        names.push(text.value.to_owned());
    }
    sound.then_some(names)
}

/// A file of keys that can be used, and that doesn't lie beside what they keep shut.
fn key_file(sink: &Sink, node: &Node<'_>, folder: &Path, state_dir: &Path) -> Option<PathBuf> {
    let text = node.filled()?;
    let path = folder.join(text.value);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let found = if real(&path).starts_with(real(state_dir)) {
        let message = "the keys lie in `state_dir`, beside what they keep shut";
        let help = "name another place: who gets a copy of the journal must not get the keys with it";
        Some((message.to_owned(), help))
    } else {
        Keys::read(&path).err().map(|error| {
            let message = format!("`{}` is no file of keys: {error}", path.display());
            let help =
                "make one that Qbox alone may read: (umask 077; head -c 32 /dev/urandom | base64 > FILE)";
            (message, help)
        })
    };
    match found {
        None => Some(path),
        Some((message, help)) => {
            sink.error(Code::KeyFile, text.span.clone(), message, "", help);
            None
        }
    }
}

/// A token (RFC 9110, 5.6.2).
fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Keys with dots between them; an array has none of its own.
fn is_field(path: &str) -> bool {
    path.split('.')
        .all(|key| !key.is_empty() && !key.bytes().all(|byte| byte.is_ascii_digit()))
}

fn address(sink: &Sink, node: &Node<'_>) -> Option<SocketAddr> {
    let text = node.text()?;
    text.value.parse().map_or_else(
        |_| {
            let message = format!("`{}` is not an IP address and port", text.value);
            let help = "write an IP address, not a name, and a port: \"127.0.0.1:9901\", \"[::1]:9901\"";
            sink.error(Code::Address, text.span.clone(), message, "", help);
            None
        },
        Some,
    )
}

fn pass(sink: &Sink, node: &Node<'_>) -> Option<Pass> {
    let text = node.text()?;
    let pass = pass_of(text.value);
    if pass.is_none() {
        let message = format!("`{}` is no IP address, and no network", text.value);
        let help = "write an address or a network, and a port behind it if only that is meant: \"10.1.2.3\", \
                    \"10.1.0.0/16:8080\", \"fd00::/8\", \"[fd00::1]:8080\"";
        sink.error(Code::Address, text.span.clone(), message, "", help);
    }
    pass
}

/// `ADDRESS`, `ADDRESS/BITS`, and either with `:PORT`, IPv6 then in brackets.
fn pass_of(text: &str) -> Option<Pass> {
    let (network, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (network, port) = rest.split_once(']')?;
            (network, Some(port.strip_prefix(':')?))
        }
        None => match text.split_once(':') {
            Some((network, port)) if !port.contains(':') => (network, Some(port)),
            _ => (text, None),
        },
    };
    let (address, bits) = match network.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (network, None),
    };
    let address: IpAddr = address.parse().ok()?;
    if text.starts_with('[') && address.is_ipv4() {
        return None;
    }
    // What a mapped address's bits would count from is not clear to all.
    if address != address.to_canonical() {
        return None;
    }
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = bits.map_or(Some(width), |bits| bits.parse().ok())?;
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    (prefix <= width).then_some(Pass {
        address,
        prefix,
        port,
    })
}

/// An address that other machines may reach asks for a token: what listens there can see and undo every saga.
fn admin_address(sink: &Sink, node: &Node<'_>, guarded: bool) -> Option<SocketAddr> {
    let address = address(sink, node)?;
    if !guarded && !address.ip().to_canonical().is_loopback() {
        let message = format!("the admin API on {address} would ask nobody who they are");
        let help = "name a file that holds a secret with `token_file` of [admin], or listen on a loopback address: \
                    \"127.0.0.1:9901\"";
        let label = "other machines may reach this";
        sink.error(Code::OpenAdmin, node.text()?.span, message, label, help);
        return None;
    }
    Some(address)
}

/// Whether a text is the URL of a service, to which paths can be added.
pub(super) fn is_base(text: &str) -> bool {
    let url: Option<http::Uri> = text.parse().ok();
    url.is_some_and(|url| {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        matches!(url.scheme_str(), Some("http" | "https"))
            && !url.host().unwrap_or_default().is_empty()
            && !authority.contains('@')
            && url.query().is_none()
            && !text.contains('#')
    })
}

/// How many cgroups may be named: the programs are attached to each.
const MOST_CGROUPS: usize = 16;

/// One folder or pattern, or a list of them.
fn cgroups(sink: &Sink, node: &Node<'_>) -> Option<Vec<PathBuf>> {
    if matches!(node.value, DeValue::String(_)) {
        return Some(vec![PathBuf::from(node.filled()?.value)]);
    }
    let nodes = node.list("[\"kubepods.slice\", \"qbox\"]")?;
    if nodes.is_empty() || nodes.len() > MOST_CGROUPS {
        let message = format!("`cgroup` names {} cgroups", nodes.len());
        let help =
            format!("name 1 to {MOST_CGROUPS}; `*` and `?` stand for any bytes and any byte of a name");
        sink.error(Code::OutOfRange, node.span.clone(), message, "", help);
        return None;
    }
    let paths = nodes.iter().map(|node| Some(PathBuf::from(node.filled()?.value)));
    paths.collect()
}

/// A URL without what can't be a part of it: user information would be shown, and a query or fragment has no path behind it.
fn collector(sink: &Sink, node: &Node<'_>) -> Option<String> {
    let text = node.filled()?;
    if !is_base(text.value) {
        let message = format!("`{}` is not the URL of a collector", text.value);
        let help = "write its scheme, host and port: \"http://collector:4318\"; credentials go into [[upstream.service]]";
        sink.error(Code::Url, text.span.clone(), message, "", help);
        return None;
    }
    Some(text.value.trim_end_matches('/').to_owned())
}

fn filter(sink: &Sink, node: &Node<'_>) -> Option<String> {
    let text = node.filled()?;
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(text.value) {
        let message = format!("`{}` is not a log filter: {error}", text.value);
        let help = "write `error`, `warn`, `info`, `debug` or `trace`, or a list as \"qbox=debug,info\"";
        sink.error(Code::Filter, text.span.clone(), message, "", help);
        return None;
    }
    Some(text.value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes() {
        let pass = |address: &str, prefix, port| {
            let address = address.parse().unwrap();
            Some(Pass {
                address,
                prefix,
                port,
            })
        };
        assert_eq!(pass_of("10.1.2.3"), pass("10.1.2.3", 32, None));
        assert_eq!(pass_of("10.1.0.0/16:80"), pass("10.1.0.0", 16, Some(80)));
        assert_eq!(pass_of("fd00::/8"), pass("fd00::", 8, None));
        assert_eq!(pass_of("fd00::1"), pass("fd00::1", 128, None));
        assert_eq!(pass_of("[fd00::/8]:80"), pass("fd00::", 8, Some(80)));
        for wrong in [
            "",
            "8080",
            ":8080",
            "trips:8080",
            "10.1.2",
            "10.1.2.3/33",
            "10.1.2.3/",
            "10.1.2.3:0",
            "10.1.2.3:",
            "10.1.2.3:99999",
            "[10.1.2.3]:80",
            "[fd00::1]",
            "[fd00::1",
            "fd00::/129",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(pass_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_cgroup2_mount_of_a_hybrid_machine_is_found() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            cgroup2_root(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        let unified = "cgroup2 /mnt/x cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_root(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_root("garbage"), None);
    }
}
