//! A service that takes part in sagas: it books ids in a ledger, and does what a script says.

mod server;

use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request, as the service saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// GET, PUT, POST, DELETE, …
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: String,
    /// Who asked, by address.
    pub peer: IpAddr,
    /// The certificate that it showed, in DER.
    pub certificate: Option<Vec<u8>>,
}

impl Asked {
    /// A header's value; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// What is booked or un-booked: the path's last segment.
    fn id(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// What a service does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// PUT and POST book, DELETE un-books, GET reads; the answer is JSON.
    Serve,
    /// Does it, and answers later than it could.
    ServeLate(Duration),
    /// Does it, and answers, only after that time, and also if whoever asked has gone away.
    ServeAfter(Duration),
    /// Does it, and resets the connection instead of an answer.
    ServeAndReset,
    /// Does nothing, and answers with this status.
    Refuse(u16),
    /// Does it, and answers with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, &'static str)>, &'static str),
}

type Script = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;

/// What a service has seen and done.
struct Books {
    script: Script,
    booked: BTreeSet<String>,
    asked: Vec<Asked>,
}

/// One service, listening until it is dropped or closed.
pub struct Service {
    name: &'static str,
    books: Arc<Mutex<Books>>,
    server: Option<server::Server>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Serves on the listeners, which belong to whatever namespace they were made in.
    ///
    /// # Errors
    /// No thread.
    pub fn start(name: &'static str, listeners: Vec<TcpListener>) -> Result<Self> {
        Self::start_with(name, listeners, None)
    }

    /// The same under TLS.
    ///
    /// # Errors
    /// No thread.
    pub fn start_tls(
        name: &'static str,
        listeners: Vec<TcpListener>,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<Self> {
        Self::start_with(name, listeners, Some(tls))
    }

    fn start_with(
        name: &'static str,
        listeners: Vec<TcpListener>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self> {
        let books = Arc::new(Mutex::new(Books {
            script: Arc::new(|_| Act::Serve),
            booked: BTreeSet::new(),
            asked: Vec::new(),
        }));
        let server = server::Server::start(name, Arc::clone(&books), listeners, tls)?;
        Ok(Self {
            name,
            books,
            server: Some(server),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// From now on does what `script` says.
    pub fn script(&self, script: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        lock(&self.books).script = Arc::new(script);
    }

    /// From now on does `act` when asked to book, and serves all else.
    pub fn when_booking(&self, act: Act) {
        self.script(move |asked| match asked.method.as_str() {
            "PUT" | "POST" => act.clone(),
            _ => Act::Serve,
        });
    }

    /// Closes its ports: connects are refused from now on.
    pub fn close(&mut self) {
        drop(self.server.take());
    }

    /// Whether the id is in the ledger.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        lock(&self.books).booked.contains(id)
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> Vec<String> {
        lock(&self.books).booked.iter().cloned().collect()
    }

    /// All requests so far, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.books).asked.clone()
    }

    /// How many requests of a method have come.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        lock(&self.books)
            .asked
            .iter()
            .filter(|asked| asked.method == method)
            .count()
    }
}

/// A panic elsewhere leaves the books as they are.
fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}
