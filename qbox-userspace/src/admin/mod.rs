//! The admin API: health, pods, sagas, definitions, as JSON; metrics, as OpenMetrics text; and operators' decisions. On a
//! thread and a runtime of its own, so that it answers when the data path is busy.
//!
//! It looks on through the [`Runner`] and the few facts in [`Node`]; it knows nothing of the data path's internals, and
//! changes nothing itself: a decision goes to its saga through the [`Runner`]. Errors: [`AdminError`], all of them from the start.

mod actions;
mod bounded;
mod definitions;
mod events;
mod handover;
mod history;
mod list;
mod live;
mod log;
mod metrics;
mod observed;
mod page;
mod peer;
mod probes;
mod problem;
mod query;
mod routes;
mod socket;
mod standby;
mod token;
mod view;

pub use definitions::{Definitions, LoadError, definition};
pub use handover::HandOver;
pub use history::{EventView, SagaView, StepView};
pub use log::LogFilter;
pub use metrics::{Tally, Traffic};
pub use probes::Probes;
pub use standby::{StandBy, Standing};
pub use token::{Token, TokenError, read_token};
pub use view::{Before, Capture, Kubernetes, Other, Pod, Status};

use crate::observe::Observer;
use crate::runner::Runner;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The TCP address is taken, or not this machine's.
    #[error(
        "the admin API can't listen on {address} (is another Qbox running, or should `listen` of [admin] differ?)"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Unix socket can't be made.
    #[error("can't make the admin socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token's file can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No thread or no runtime.
    #[error("the admin API can't start")]
    Start(#[source] io::Error),
}

/// Where it listens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// TCP.
    pub listen: SocketAddr,
    /// The token that TCP clients must know; `None`: nobody is asked, so the address is best a loopback address.
    pub token_file: Option<PathBuf>,
    /// A Unix socket, for its owner alone.
    pub socket: PathBuf,
}

/// What the API says beside the runner's sagas.
pub struct Node {
    /// How requests come here.
    pub capture: Box<dyn Fn() -> Capture + Send + Sync>,
    /// The pods that are known now.
    pub pods: Box<dyn Fn() -> Vec<Pod> + Send + Sync>,
    /// How the Kubernetes API is followed, if it is.
    pub kubernetes: Box<dyn Fn() -> Option<Kubernetes> + Send + Sync>,
    /// What sagas that are only observed would have done.
    pub observer: Observer,
    /// What the data path has counted so far.
    pub traffic: Box<dyn Fn() -> Traffic + Send + Sync>,
    /// What is loaded now.
    pub definitions: Box<dyn Fn() -> Arc<Definitions> + Send + Sync>,
    /// Reads the files again, and says what is loaded then. It blocks on the disk.
    pub reload: Box<dyn Fn() -> Arc<Definitions> + Send + Sync>,
    /// Changes the log filter if there is one, and says which holds then; or why it is none.
    pub log: LogFilter,
    /// Lets another Qbox take this one's place.
    pub handover: HandOver,
    /// Tells one that stands by how it stands.
    pub standby: StandBy,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

/// Both sockets, open; nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    token: Option<Token>,
    tcp: TcpListener,
    unix: Option<(UnixListener, socket::Bound)>,
}

impl Bound {
    /// Opens them.
    ///
    /// # Errors
    /// [`AdminError`]: an address or the socket's path is taken. A socket that this process has no leave to make is done
    /// without, and that is logged.
    pub fn new(settings: &Settings) -> Result<Self, AdminError> {
        let token = settings.token_file.as_deref().map(Token::read).transpose()?;
        let listen = |source| AdminError::Listen {
            address: settings.listen,
            source,
        };
        let tcp = TcpListener::bind(settings.listen).map_err(listen)?;
        tcp.set_nonblocking(true).map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let unix = match socket::bind(&settings.socket) {
            Ok(unix) => Some(unix),
            // Without root the default place is out of reach, which is no reason not to run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(
                    socket = %settings.socket.display(),
                    %error,
                    "no admin socket for `qbox status` and the like: set `socket` of [admin] to a place of your own"
                );
                None
            }
            Err(source) => {
                return Err(AdminError::Socket {
                    path: settings.socket.clone(),
                    source,
                });
            }
        };
        Ok(Self {
            address,
            token,
            tcp,
            unix,
        })
    }

    /// The TCP address, with the port that was found where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The running API. Dropping it ends it, and takes its socket away.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    socket: Option<socket::Bound>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Admin {
    /// Serves.
    ///
    /// # Errors
    /// [`AdminError::Start`].
    pub fn start(bound: Bound, runner: Runner, node: Node) -> Result<Self, AdminError> {
        let Bound {
            address,
            token,
            tcp,
            unix,
        } = bound;
        let (unix, socket) = unix.unzip();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(routes::Shared {
            runner,
            node,
            address,
            token,
            followers: events::Followers::new(),
        });
        let thread = std::thread::Builder::new()
            .name("qbox-admin".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(routes::serve(shared, tcp, unix, stopped)) {
                    tracing::error!(%error, "the admin API has stopped");
                }
            })
            .map_err(AdminError::Start)?;
        Ok(Self {
            address,
            socket,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The TCP address, with the port that was found where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Unix socket's path; `None` where this process may not make it.
    #[must_use]
    pub fn socket(&self) -> Option<&std::path::Path> {
        self.socket.as_ref().map(socket::Bound::path)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // While it still answers: a Qbox that takes this one's place may be there as soon as it doesn't, and what is made anew may have
        // the same inode.
        drop(self.socket.take());
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod openapi_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
