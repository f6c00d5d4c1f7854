//! A Kubernetes API, as far as it lists and watches pods and namespaces ("Kubernetes API Concepts", Efficient detection of
//! changes): versions that grow, watches that go on from one, bookmarks, versions that it has forgotten (410), and connections that
//! break at the tests' will. HTTP/1.1 over TLS or plain, with a token.
//!
//! It keeps to what the real one does on the wire, but is none: it has no etcd, and nobody writes to it but the test.

use anyhow::{Context, Result, bail};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a watch that is told nothing waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The API, until it is dropped.
pub struct Cluster {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

struct Shared {
    token: String,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By collection (`pods`, `namespaces`) and UID.
    objects: BTreeMap<(&'static str, String), Value>,
    /// What has happened, in order; watches begin somewhere in it.
    log: Vec<Happened>,
    /// The last one's number.
    happened: u64,
    /// Watches can't begin before this version.
    oldest: u64,
    /// Counts how often all watches were to end, and how.
    cut: (u64, Cut),
    /// Of each request the method and target.
    asked: Vec<String>,
    /// Watches that are open.
    watching: usize,
    /// What the next requests are answered, instead of what they ask for.
    refuse: Option<u16>,
    /// Nobody is answered, and connections are closed at once.
    stopped: bool,
    over: bool,
}

struct Happened {
    /// Its number: a bookmark has the version of what it follows.
    number: u64,
    version: u64,
    collection: &'static str,
    kind: &'static str,
    object: Value,
}

/// How watches end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// In good order, as after their `timeoutSeconds`.
    #[default]
    Close,
    /// With a reset, in the middle of an event.
    Break,
    /// With an event that says 410.
    Expire,
    /// With a line that is no event.
    Garble,
}

/// A pod of the API.
#[derive(Clone, Debug, Default)]
pub struct ApiPod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it is bound to.
    pub node: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Annotations.
    pub annotations: Vec<(String, String)>,
    /// It is on its node's network.
    pub host_network: bool,
}

impl ApiPod {
    /// One in `default`, without labels.
    #[must_use]
    pub fn new(uid: &str, name: &str, node: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// With a label more.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With an annotation more.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    fn json(&self) -> Value {
        let map = |pairs: &[(String, String)]| -> Value {
            match pairs.is_empty() {
                // As the real one: what is empty isn't there.
                true => Value::Null,
                false => pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), Value::from(value.clone())))
                    .collect::<serde_json::Map<_, _>>()
                    .into(),
            }
        };
        let mut pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": self.name, "namespace": self.namespace, "uid": self.uid,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": { "f:phase": {} } } }],
            },
            "spec": {
                "nodeName": self.node,
                "containers": [{ "name": "app", "image": "app:1", "resources": { "limits": { "memory": "64Mi" } } }],
                "restartPolicy": "Always", "serviceAccountName": "default",
            },
            "status": { "phase": "Running", "podIP": "10.0.0.7", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        for (key, value) in [
            ("labels", map(&self.labels)),
            ("annotations", map(&self.annotations)),
        ] {
            if !value.is_null() {
                pod["metadata"][key] = value;
            }
        }
        if self.host_network {
            pod["spec"]["hostNetwork"] = true.into();
        }
        pod
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn happens(&mut self, collection: &'static str, kind: &'static str, mut object: Value) -> Value {
        self.version += 1;
        self.happened += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push(Happened {
            number: self.happened,
            version: self.version,
            collection,
            kind,
            object: object.clone(),
        });
        object
    }

    fn put(&mut self, collection: &'static str, uid: &str, object: Value) {
        let key = (collection, uid.to_owned());
        let kind = match self.objects.contains_key(&key) {
            true => "MODIFIED",
            false => "ADDED",
        };
        let object = self.happens(collection, kind, object);
        self.objects.insert(key, object);
    }
}

impl Cluster {
    /// Serves on `listener`; with TLS if that is given. Clients show `token`.
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(listener: TcpListener, token: &str, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let shared = Arc::new(Shared {
            token: token.to_owned(),
            // Real versions are large, and lists begin with one.
            state: Mutex::new(State {
                version: 1000,
                ..State::default()
            }),
            news: Condvar::new(),
        });
        let address = listener.local_addr()?;
        let (accepting, secured) = (Arc::clone(&shared), tls.clone());
        thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || accept(&listener, &accepting, secured.as_ref()))?;
        Ok(Self { address, shared, tls })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Makes a pod, or changes the one of its UID.
    pub fn put(&self, pod: &ApiPod) {
        self.shared.state().put("pods", &pod.uid, pod.json());
        self.shared.news.notify_all();
    }

    /// Deletes a pod.
    pub fn delete(&self, pod: &ApiPod) {
        let mut state = self.shared.state();
        if let Some(object) = state.objects.remove(&("pods", pod.uid.clone())) {
            state.happens("pods", "DELETED", object);
        }
        drop(state);
        self.shared.news.notify_all();
    }

    /// Makes a namespace, or changes it.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let object = json!({
            "kind": "Namespace", "apiVersion": "v1",
            "metadata": { "name": name, "uid": format!("uid-of-{name}"), "labels": labels },
            "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
        });
        self.shared.state().put("namespaces", name, object);
        self.shared.news.notify_all();
    }

    /// Lets all watches of pods know the newest version, as happens every minute or so.
    pub fn bookmark(&self) {
        let mut state = self.shared.state();
        let version = state.version.to_string();
        let object = json!({ "kind": "Pod", "apiVersion": "v1",
            "metadata": { "resourceVersion": version, "creationTimestamp": null }, "spec": { "containers": null }, "status": {} });
        state.happened += 1;
        let (number, version) = (state.happened, state.version);
        state.log.push(Happened {
            number,
            version,
            collection: "pods",
            kind: "BOOKMARK",
            object,
        });
        drop(state);
        self.shared.news.notify_all();
    }

    /// Something happens elsewhere in the cluster: versions grow.
    pub fn age(&self, by: u64) {
        self.shared.state().version += by;
    }

    /// Ends all watches.
    pub fn cut(&self, how: Cut) {
        let mut state = self.shared.state();
        state.cut = (state.cut.0 + 1, how);
        drop(state);
        self.shared.news.notify_all();
    }

    /// Forgets what has happened so far: no watch can begin before now.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.oldest = state.version;
        state.log.clear();
    }

    /// Answers with this status, until told otherwise.
    pub fn refuse(&self, status: Option<u16>) {
        self.shared.state().refuse = status;
    }

    /// Answers nobody, and breaks all connections; or answers again.
    pub fn stop(&self, stopped: bool) {
        let mut state = self.shared.state();
        state.stopped = stopped;
        if stopped {
            state.cut = (state.cut.0 + 1, Cut::Break);
        }
        drop(state);
        self.shared.news.notify_all();
    }

    /// The method and target of each request so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.state().asked.clone()
    }

    /// How many watches are open.
    #[must_use]
    pub fn watching(&self) -> usize {
        self.shared.state().watching
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.news.notify_all();
        // It wakes whoever accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    for stream in listener.incoming() {
        if shared.state().over {
            return;
        }
        let Ok(stream) = stream else { continue };
        if shared.state().stopped {
            reset(&stream);
            continue;
        }
        let (shared, tls) = (Arc::clone(shared), tls.cloned());
        thread::spawn(move || {
            // A client that goes away is none's concern.
            drop(serve(stream, &shared, tls));
        });
    }
}

/// The other side sees a reset when the stream is dropped.
fn reset(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// Either kind of stream.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

fn serve(stream: TcpStream, shared: &Shared, tls: Option<Arc<ServerConfig>>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let raw = stream.try_clone()?;
    let wire: Box<dyn Wire> = match tls {
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config)?, stream)),
        None => Box::new(stream),
    };
    let mut reader = BufReader::new(wire);
    loop {
        let Some((target, token)) = head(&mut reader)? else {
            return Ok(());
        };
        let refused = {
            let mut state = shared.state();
            if state.stopped {
                reset(&raw);
                return Ok(());
            }
            state.asked.push(target.clone());
            match state.refuse {
                Some(status) => Some((status, "refused by the test")),
                None if token != shared.token => Some((401, "Unauthorized")),
                None => None,
            }
        };
        let wire = reader.get_mut();
        if let Some((status, message)) = refused {
            respond(wire, status, &failure(status, message))?;
            continue;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = Query::new(query);
        let collection = match path {
            "/api/v1/pods" => "pods",
            "/api/v1/namespaces" => "namespaces",
            _ => {
                respond(
                    wire,
                    404,
                    &failure(404, "the server could not find the requested resource"),
                )?;
                continue;
            }
        };
        if query.get("watch").as_deref() != Some("true") {
            respond(wire, 200, &list(shared, collection, &query))?;
            continue;
        }
        // A watch is the last on its connection, however it ended.
        return Ok(watch(wire, &raw, shared, collection, &query)?);
    }
}

/// The target and the token of the next request.
fn head(reader: &mut impl BufRead) -> Result<Option<(String, String)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (Some("GET"), Some(target)) = (words.next(), words.next()) else {
        bail!("not a GET: {line}");
    };
    let target = target.to_owned();
    let mut token = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some((target, token)));
        }
        let (name, value) = line.split_once(':').context("no header")?;
        if name.eq_ignore_ascii_case("authorization") {
            value.trim().trim_start_matches("Bearer ").clone_into(&mut token);
        }
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn new(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        // All that is escaped here.
        let plain = |text: &str| text.replace("%3D", "=").replace("%2C", ",");
        Self(pairs.map(|(key, value)| (plain(key), plain(value))).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    }

    fn takes(&self, object: &Value) -> bool {
        let fields = self.get("fieldSelector").unwrap_or_default();
        match fields.strip_prefix("spec.nodeName=") {
            Some(node) => object["spec"]["nodeName"] == node,
            None => fields.is_empty(),
        }
    }
}

fn list(shared: &Shared, collection: &'static str, query: &Query) -> Value {
    let state = shared.state();
    let objects = state.objects.iter().filter(|((of, _), _)| *of == collection);
    let items: Vec<Value> = objects
        .map(|(_, object)| object.clone())
        .filter(|object| query.takes(object))
        .map(|mut object| {
            // Within a list they have neither.
            if let Some(object) = object.as_object_mut() {
                object.remove("kind");
                object.remove("apiVersion");
            }
            object
        })
        .collect();
    json!({ "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": state.version.to_string() }, "items": items })
}

fn failure(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": if code == 410 { "Expired" } else { "" }, "code": code })
}

fn respond(wire: &mut dyn Wire, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        wire,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    wire.flush()
}

/// A line of a watch, in two pieces: a reader must put them together.
fn tell(wire: &mut dyn Wire, kind: &str, object: &Value) -> io::Result<()> {
    let line = format!("{}\n", json!({ "type": kind, "object": object }));
    let (a, b) = line.split_at(line.len() / 2);
    for part in [a, b] {
        write!(wire, "{:x}\r\n{part}\r\n", part.len())?;
        wire.flush()?;
    }
    Ok(())
}

fn watch(
    wire: &mut dyn Wire,
    raw: &TcpStream,
    shared: &Shared,
    collection: &'static str,
    query: &Query,
) -> io::Result<()> {
    let from: u64 = query
        .get("resourceVersion")
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let (cut, expired) = {
        let state = shared.state();
        (state.cut.0, from < state.oldest)
    };
    if expired {
        let message = format!("too old resource version: {from}");
        return respond(wire, 410, &failure(410, &message));
    }
    write!(
        wire,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    wire.flush()?;
    shared.state().watching += 1;
    let done = go_on(wire, raw, shared, collection, query, (from, cut));
    shared.state().watching -= 1;
    done
}

fn go_on(
    wire: &mut dyn Wire,
    raw: &TcpStream,
    shared: &Shared,
    collection: &'static str,
    query: &Query,
    (from, cut): (u64, u64),
) -> io::Result<()> {
    let mut told = 0;
    loop {
        let state = shared.state();
        if state.over {
            return Ok(());
        }
        if state.cut.0 != cut {
            let how = state.cut.1;
            drop(state);
            return end(wire, raw, how);
        }
        let new = |happened: &&Happened| {
            let bookmark = happened.kind == "BOOKMARK";
            let later = happened.version > from || (bookmark && happened.version == from);
            let wanted = happened.collection == collection && (bookmark || query.takes(&happened.object));
            happened.number > told && later && wanted
        };
        let news = state.log.iter().filter(new);
        let news: Vec<_> = news.map(|one| (one.kind, one.object.clone())).collect();
        told = state.happened;
        if news.is_empty() {
            let waited = shared.news.wait_timeout(state, LOOK);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            continue;
        }
        drop(state);
        for (kind, object) in news {
            tell(wire, kind, &object)?;
        }
    }
}

fn end(wire: &mut dyn Wire, raw: &TcpStream, how: Cut) -> io::Result<()> {
    match how {
        Cut::Close => write!(wire, "0\r\n\r\n")?,
        Cut::Break => {
            let half = "{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Pod\",\"metad";
            write!(wire, "{:x}\r\n{half}\r\n", half.len())?;
            wire.flush()?;
            reset(raw);
        }
        Cut::Expire => {
            tell(wire, "ERROR", &failure(410, "too old resource version"))?;
            write!(wire, "0\r\n\r\n")?;
        }
        Cut::Garble => {
            let line = "{\"type\":\"MODIFIED\",\"object\":\"?\"}\n";
            write!(wire, "{:x}\r\n{line}\r\n", line.len())?;
        }
    }
    wire.flush()
}
