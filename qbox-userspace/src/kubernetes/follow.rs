//! One kind of object, listed and then watched, for ever ("Efficient detection of changes" of the Kubernetes API's concepts).
//!
//! A list says at which version it is of, and a watch goes on from there. When the API no longer knows the version (410, as an
//! answer or as an event) all is listed anew; when a connection breaks the watch goes on from the last version that it told.
//! Both wait longer each time as long as nothing works. What is read is bounded, and so is each wait.

use super::link::Link;
use super::object::{List, Object};
use super::roster::Keep;
use crate::causes::chain;
use bytes::BytesMut;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The longest list: kubelet's limit is 250 pods of some KiB each, and there may be thousands of namespaces.
const LONGEST_LIST: usize = 128 << 20;
/// The longest event: more than what an object in etcd can be.
const LONGEST_EVENT: usize = 8 << 20;
/// The longest answer that says no.
const LONGEST_REFUSAL: usize = 64 << 10;
/// How long a list may take.
const LIST: Duration = Duration::from_secs(60);
/// After so long the API ends a watch, in seconds, and the next one begins. A connection that is dead and doesn't say so is
/// noticed then.
const WATCH: u32 = 240;
/// How much longer it is listened to.
const LATE: Duration = Duration::from_secs(15);
/// A watch that has lasted so long was one that works.
const SOUND: Duration = Duration::from_secs(5);
/// The waits between tries.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(20);

/// What is followed.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Its collection's path.
    pub(super) path: &'static str,
    /// Of which fields.
    pub(super) fields: Option<String>,
}

/// How a watch ended.
enum End {
    /// In good order.
    Closed,
    /// It can't go on from this version.
    Expired,
    /// In another way, after which the version may not be worth anything: something was told that can't be understood.
    Confused(String),
    /// In another way.
    Broken(String),
}

/// Lists and watches, until it is dropped.
pub(super) async fn follow<K: Object>(client: Client, subject: Subject, keep: &dyn Keep<K>, link: &Link) {
    let mut pause = Pause::default();
    loop {
        let mut version = match list::<K>(&client, &subject).await {
            Ok((items, version)) => {
                let count = items.len();
                keep.replace(items);
                link.listed(count);
                version
            }
            Err(why) => {
                link.failed(why);
                pause.wait().await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let end = watch(&client, &subject, &mut version, keep, link).await;
            if began.elapsed() >= SOUND {
                pause = Pause::default();
            }
            match end {
                End::Closed if began.elapsed() >= SOUND => {}
                // Whoever closes at once is not asked without end.
                End::Closed => pause.wait().await,
                End::Expired => {
                    link.expired();
                    pause.wait().await;
                    break;
                }
                End::Confused(why) => {
                    link.failed(why);
                    pause.wait().await;
                    break;
                }
                End::Broken(why) => {
                    link.failed(why);
                    pause.wait().await;
                }
            }
        }
    }
}

async fn list<K: Object>(client: &Client, subject: &Subject) -> Result<(Vec<K>, String), String> {
    // From the API's memory: a list from its store would read all of the cluster's pods for one node's.
    let wanted = ListParams {
        field_selector: subject.fields.clone(),
        ..ListParams::default().match_any()
    };
    let request = Request::new(subject.path).list(&wanted);
    let read = async {
        let answer = ask(client, request).await.map_err(Refusal::text)?;
        let body = Limited::new(answer, LONGEST_LIST).collect().await;
        let bytes = body.map_err(|error| error.to_string())?.to_bytes();
        let List { metadata, items }: List<K> =
            serde_json::from_slice(&bytes).map_err(|error| format!("its list can't be read: {error}"))?;
        Ok((items.unwrap_or_default(), metadata.resource_version))
    };
    let late = |_| format!("it has not listed within {} s", LIST.as_secs());
    timeout(LIST, read).await.map_err(late)?
}

async fn watch<K: Object>(
    client: &Client,
    subject: &Subject,
    version: &mut String,
    keep: &dyn Keep<K>,
    link: &Link,
) -> End {
    let wanted = WatchParams {
        field_selector: subject.fields.clone(),
        timeout: Some(WATCH),
        ..WatchParams::default()
    };
    let request = Request::new(subject.path).watch(&wanted, version);
    let mut body = match timeout(LIST, ask(client, request)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Refusal { code: 410, .. })) => return End::Expired,
        Ok(Err(refusal)) => return End::Broken(refusal.text()),
        Err(_) => return End::Broken(format!("it has not begun to watch within {} s", LIST.as_secs())),
    };
    link.watching();
    let end = Instant::now() + Duration::from_secs(WATCH.into()) + LATE;
    let mut held = BytesMut::new();
    // Behind what of it no line ends.
    let mut searched = 0;
    loop {
        let rest = held.get(searched..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', rest) else {
            searched = held.len();
            if held.len() > LONGEST_EVENT {
                return End::Confused(format!("an event is longer than {LONGEST_EVENT} bytes"));
            }
            match timeout_at(end, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        held.extend_from_slice(&data);
                    }
                    continue;
                }
                Ok(Some(Err(error))) => return End::Broken(format!("the watch broke: {error}")),
                // What is left is half an event, which is told again.
                Ok(None) => return End::Closed,
                Err(_) => return End::Broken("the watch does not end".to_owned()),
            }
        };
        let line = held.split_to(searched + at + 1);
        searched = 0;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<WatchEvent<K>>(&line) {
            Ok(event) => {
                link.event();
                if let Err(end) = take(event, version, keep) {
                    return end;
                }
            }
            Err(error) => return End::Confused(format!("an event can't be read: {error}")),
        }
    }
}

/// Takes an event in.
fn take<K: Object>(event: WatchEvent<K>, version: &mut String, keep: &dyn Keep<K>) -> Result<(), End> {
    let told = match event {
        WatchEvent::Added(one) | WatchEvent::Modified(one) => {
            let told = one.metadata().resource_version.clone();
            keep.apply(one);
            told
        }
        WatchEvent::Deleted(one) => {
            keep.delete(&one);
            one.metadata().resource_version.clone()
        }
        WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
        WatchEvent::Error(status) if status.code == 410 => return Err(End::Expired),
        WatchEvent::Error(status) => return Err(End::Confused(said(&status))),
    };
    if !told.is_empty() {
        *version = told;
    }
    Ok(())
}

/// The API has said no, or nothing.
struct Refusal {
    /// 0: nothing.
    code: u16,
    why: String,
}

impl Refusal {
    fn text(self) -> String {
        self.why
    }
}

fn said(status: &Status) -> String {
    format!("it says {} {}", status.code, status.message)
}

/// The body of an answer that says yes.
async fn ask(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<Body, Refusal> {
    let silent = |why: String| Refusal { code: 0, why };
    let request = request.map_err(|error| silent(error.to_string()))?;
    let answer = client.send(request.map(Body::from)).await;
    let answer = answer.map_err(|error| silent(chain(&error)))?;
    let code = answer.status().as_u16();
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    let body = Limited::new(answer.into_body(), LONGEST_REFUSAL).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let why = match serde_json::from_slice::<Status>(&body) {
        Ok(status) => said(&Status { code, ..status }),
        Err(_) => format!("it says {code}"),
    };
    Err(Refusal { code, why })
}

/// Waits, longer each time; half of each is drawn, so that a cluster's nodes don't come all at once.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Pause {
    async fn wait(&mut self) {
        let drawn = RandomState::new().build_hasher().finish() % 1000;
        let half = self.0 / 2;
        sleep(half + half.mul_f64(drawn as f64 / 1000.0)).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
