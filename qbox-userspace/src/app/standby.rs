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
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long one that is told to stop goes on while another that stands by gets ready to take over.
const SUCCESSION: Duration = Duration::from_secs(10);
/// How long nobody may answer before the place is free: one that has taken it has the journal and its sockets by then.
const NOBODY: Duration = Duration::from_secs(30);
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

/// Waits for its turn, or to be told to stop.
pub(super) async fn wait(config: &Config, signals: &mut Signals) -> Turn {
    tracing::info!("standing by: another Qbox has this one's place");
    tokio::select! {
        () = ours(config) => Turn::Ours,
        () = signals.next(|| {}) => Turn::Stopped,
    }
}

/// Waits until it is this one's turn.
pub(super) async fn ours(config: &Config) {
    until_free(&config.admin.socket, config.admin.listen).await;
}

async fn until_free(socket: &Path, listen: SocketAddr) {
    let mut heard = Instant::now();
    while heard.elapsed() < NOBODY {
        match follow(socket, listen).await {
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
        until_free(Path::new("/nonexistent/admin.sock"), ([127, 0, 0, 1], 0).into()).await;
        assert!(began.elapsed() >= NOBODY);
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
