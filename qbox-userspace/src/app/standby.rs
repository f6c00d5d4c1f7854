//! A Qbox whose place another has taken stays, and takes it again when that one is told to stop, or ends: for a DaemonSet whose
//! rolling update has both pods run for a while. It captures nothing meanwhile, has neither journal nor sockets, and answers
//! kubelet's probes where nobody else does.
//!
//! Errors of what it follows are logged, and it is followed again.

use super::handover;
use super::signals::Signals;
use crate::admin::{Probes, Standing};
use crate::config::Config;
use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long one that is told to stop goes on while another that stands by gets ready to take over.
const SUCCESSION: Duration = Duration::from_secs(10);
/// How long nobody may answer before the place is free: one that has taken it has the journal and its sockets by then.
const NOBODY: Duration = Duration::from_secs(30);
/// The same, where the one that was to take it has ended.
const NOBODY_LEFT: Duration = Duration::from_millis(500);
/// Between two tries: less than one that is told to stop takes at the least, so that it is not missed.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest silence of one that is followed: it says a line every two seconds.
const SILENCE: Duration = Duration::from_secs(20);
/// The most bytes of a line, of its head's too.
const LONGEST: u64 = 16 << 10;

/// Why a Qbox stands by no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The place is to be taken, or is free.
    Ours,
    /// It was told to stop.
    Stopped,
}

/// The Qbox that was handed this one's place.
#[derive(Clone, Debug, Default)]
pub(super) struct Successor(Option<Arc<OwnedFd>>);

impl Successor {
    /// The one that is this process; `None`: nobody can say which it is.
    pub(super) fn new(process: Option<u32>) -> Self {
        let process = process.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?));
        let process = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
        Self(process.map(Arc::new))
    }

    /// Whether it surely has ended (pidfd_open(2): it can be read then).
    fn has_ended(&self) -> bool {
        let Some(process) = &self.0 else { return false };
        let mut ready = [PollFd::new(process, PollFlags::IN)];
        poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }
}

/// Waits for its turn, or to be told to stop.
pub(super) async fn wait(config: &Config, successor: &Successor, signals: &mut Signals) -> Turn {
    tracing::info!("standing by: another Qbox has this one's place");
    tokio::select! {
        () = ours(config, successor) => Turn::Ours,
        () = signals.next(|| {}) => Turn::Stopped,
    }
}

/// Waits until it is this one's turn.
pub(super) async fn ours(config: &Config, successor: &Successor) {
    until_free(&config.admin.socket, config.admin.listen, successor).await;
}

async fn until_free(socket: &Path, listen: SocketAddr, successor: &Successor) {
    let mut heard = Instant::now();
    // Until somebody has the place.
    let mut successor = Some(successor);
    loop {
        let nobody = match successor {
            Some(successor) if successor.has_ended() => NOBODY_LEFT,
            _ => NOBODY,
        };
        if heard.elapsed() >= nobody {
            break;
        }
        let found = follow(socket, listen).await;
        if found.is_ok() {
            successor = None;
        }
        match found {
            Ok(Some(Standing::Stopping)) => return tracing::info!("the other Qbox was told to stop"),
            // A third one has its place by now, or will have soon.
            Ok(Some(Standing::HandedOver | Standing::On)) => heard = Instant::now(),
            Ok(None) => return tracing::warn!("the other Qbox has ended"),
            Err(error) if is_nobody(&error) => {}
            Err(error) => {
                heard = Instant::now();
                tracing::debug!(%error, "can't follow the other Qbox");
            }
        }
        sleep(PAUSE).await;
    }
    tracing::warn!("no other Qbox answers");
}

/// Whether there was nobody to speak to.
fn is_nobody(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    )
}

/// Follows the Qbox that answers at the socket until something changes; `None`: it has ended.
async fn follow(socket: &Path, listen: SocketAddr) -> Result<Option<Standing>> {
    let mut stream = UnixStream::connect(socket).await?;
    let ask = handover::request("POST", "/api/v1/standby");
    timeout(SILENCE, stream.write_all(ask.as_bytes())).await??;
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(stream, LONGEST)).lines();
    let status = line(&mut lines).await?.unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("it says {status:?}");
    }
    while line(&mut lines).await?.is_some_and(|line| !line.is_empty()) {}
    tracing::info!("following the Qbox that has this one's place");
    // It has its own by now, and can't lose it to these.
    let probes = Probes::start(listen).await;
    if let Err(error) = &probes {
        tracing::debug!(%listen, %error, "probes are not answered here: most often the other Qbox does");
    }
    loop {
        match line(&mut lines).await {
            Ok(Some(line)) if line.is_empty() => {}
            Ok(Some(line)) if line == "stopping" => return Ok(Some(Standing::Stopping)),
            Ok(Some(line)) if line == "handed-over" => return Ok(Some(Standing::HandedOver)),
            Ok(Some(line)) => bail!("it says {line:?}"),
            // A broken connection is a killed one's end.
            Ok(None) | Err(_) => return Ok(None),
        }
        lines.get_mut().get_mut().set_limit(LONGEST);
    }
}

type Source = Lines<BufReader<tokio::io::Take<UnixStream>>>;

async fn line(lines: &mut Source) -> io::Result<Option<String>> {
    match timeout(SILENCE, lines.next_line()).await {
        Ok(line) => line,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What those hear that stand by for this Qbox.
#[derive(Debug, Clone, Default)]
pub(super) struct Succession {
    tell: watch::Sender<Standing>,
}

impl Succession {
    /// For one that stands by.
    pub(super) fn follow(&self) -> watch::Receiver<Standing> {
        self.tell.subscribe()
    }

    /// This one is to stop: waits for one of those who stand by to ask for its place, if there are any.
    pub(super) async fn find<T>(&self, asked: &mut mpsc::Receiver<T>) -> Option<T> {
        // One that comes later hears it too, and need not wait for the end.
        self.tell.send_replace(Standing::Stopping);
        if self.tell.receiver_count() == 0 {
            return None;
        }
        tracing::info!(patience = ?SUCCESSION, "told to stop: going on until the Qbox that stands by takes over");
        let next = timeout(SUCCESSION, asked.recv()).await.ok().flatten();
        if next.is_none() {
            tracing::warn!("the Qbox that stood by has not taken over");
        }
        next
    }

    /// Another one has its place.
    pub(super) fn handed_over(&self) {
        self.tell.send_replace(Standing::HandedOver);
    }
}

/// Whether another Qbox answers there.
pub(super) fn is_another(socket: &Path) -> bool {
    matches!(handover::find(socket), Ok(Some(_)) | Err(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    /// One that says so much to whoever asks, and hangs up.
    async fn said(answer: &'static str) -> Result<Option<Standing>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path)?;
        let speak = async {
            let (mut stream, _) = listener.accept().await?;
            let mut asked = [0; 512];
            let count = stream.read(&mut asked).await?;
            assert!(asked[..count].starts_with(b"POST /api/v1/standby "));
            stream.write_all(answer.as_bytes()).await
        };
        let (found, spoken) = tokio::join!(follow(&path, "127.0.0.1:0".parse()?), speak);
        spoken?;
        found
    }

    #[tokio::test]
    async fn what_the_other_one_says() {
        let head = "HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n\n\n";
        assert_eq!(said(head).await.unwrap(), None);
        let stopping: String = format!("{head}stopping\n");
        assert_eq!(said(stopping.leak()).await.unwrap(), Some(Standing::Stopping));
        let handed: String = format!("{head}handed-over\n");
        assert_eq!(said(handed.leak()).await.unwrap(), Some(Standing::HandedOver));
        for other in [
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nperhaps\n",
            "",
        ] {
            let error = said(other).await.unwrap_err();
            assert!(!is_nobody(&error), "{error}");
        }
        let nobody = follow(Path::new("/nonexistent/admin.sock"), ([127, 0, 0, 1], 0).into()).await;
        assert!(is_nobody(&nobody.unwrap_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_stays_empty_is_taken() {
        let began = Instant::now();
        let nobody = Path::new("/nonexistent/admin.sock");
        until_free(nobody, ([127, 0, 0, 1], 0).into(), &Successor::default()).await;
        assert!(began.elapsed() >= NOBODY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_whose_next_one_has_died_is_taken_at_once() {
        let nobody = Path::new("/nonexistent/admin.sock");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let successor = Successor::new(Some(child.id()));
        assert!(!successor.has_ended());
        let began = Instant::now();
        until_free(nobody, ([127, 0, 0, 1], 0).into(), &successor).await;
        assert!(began.elapsed() >= NOBODY, "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(successor.has_ended());
        let began = Instant::now();
        until_free(nobody, ([127, 0, 0, 1], 0).into(), &successor).await;
        assert!(began.elapsed() < NOBODY_LEFT * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_does_not_stand_by() {
        let succession = Succession::default();
        let (ask, mut asked) = mpsc::channel(1);
        assert_eq!(succession.find(&mut asked).await, None);
        assert_eq!(*succession.follow().borrow(), Standing::Stopping);
        let succession = Succession::default();
        let standing = succession.follow();
        ask.send(7).await.unwrap();
        assert_eq!(succession.find(&mut asked).await, Some(7));
        assert_eq!(*standing.borrow(), Standing::Stopping);
        let began = Instant::now();
        assert_eq!(succession.find(&mut asked).await, None);
        assert!(began.elapsed() >= SUCCESSION);
    }
}
