//! The booking saga without root: services on loopback addresses of their own, and Qbox with a plain port.

use crate::leftovers;
use crate::qbox::{Qbox, Settings};
use crate::service::Service;
use crate::world::{PORT, SERVICES, book_trip};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;

/// Where Qbox listens, on an address of its own.
const LISTEN: u16 = 15001;

/// All of it, running.
#[derive(Debug)]
pub struct ExplicitWorld {
    /// The running Qbox. First, so that it goes first.
    pub qbox: Qbox,
    /// Where it listens.
    pub listen: String,
    services: Vec<Service>,
    folder: TempDir,
    saga: String,
}

impl ExplicitWorld {
    /// Starts the services and Qbox, with the saga of `config/`, on `port` of 127.0.0.1 if nobody has that, else (and with 0) on an address
    /// of its own.
    ///
    /// # Errors
    /// Another program listens on port 8080 of all addresses, or Qbox doesn't start.
    pub fn new(port: u16) -> Result<Self> {
        Self::with(port, &book_trip()?, &[])
    }

    /// The same with that saga, and with Qbox started by another program, if words for one are given.
    ///
    /// # Errors
    /// As [`ExplicitWorld::new`].
    pub fn with(port: u16, saga: &str, by: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", leftovers::fresh_name()))
            .tempdir()?;
        // All of 127/8 is this machine; what process id and count choose of it is hardly anybody else's.
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let first = COUNT.fetch_add(1, Ordering::Relaxed) % 50 * 5 + 2;
        let [_, _, high, low] = process::id().to_be_bytes();
        let mut services = Vec::new();
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for (number, name) in (first..).zip(SERVICES) {
            let address = Ipv4Addr::new(127, high | 0x80, low, number);
            let listener = TcpListener::bind((address, PORT))
                .with_context(|| format!("the service {name} can't listen on {address}:{PORT}"))?;
            services.push(Service::start(name, vec![listener])?);
            writeln!(hosts, "{address} {name}.default.svc")?;
        }
        fs::write(folder.path().join("hosts"), hosts)?;
        let own = Ipv4Addr::new(127, high | 0x80, low, first + 4);
        let listen = address(port, own);
        let qbox = start(&folder, &listen, saga, by)?;
        Ok(Self {
            qbox,
            listen,
            services,
            folder,
            saga: saga.to_owned(),
        })
    }

    /// Ends Qbox in good order, and starts another on the same journal.
    ///
    /// # Errors
    /// It doesn't end in time, or the other one doesn't start.
    pub fn restart(&mut self) -> Result<()> {
        self.qbox.stop(Signal::TERM)?;
        self.qbox = start(&self.folder, &self.listen, &self.saga, &[])?;
        Ok(())
    }

    /// A service.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn service(&self, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|service| service.name() == name);
        found.context("no such service")
    }

    /// Which services have booked the id.
    #[must_use]
    pub fn booked(&self, id: &str) -> Vec<&'static str> {
        let all = self.services.iter().filter(|service| service.has(id));
        all.map(Service::name).collect()
    }
}

fn start(folder: &TempDir, listen: &str, saga: &str, by: &[String]) -> Result<Qbox> {
    let settings = Settings::saga(saga);
    Qbox::start_explicit(folder.path(), &folder.path().join("hosts"), listen, &settings, by)
}

/// That port of 127.0.0.1 if nobody has it, else one of an address that nobody else has: of a port that the kernel chooses it may make
/// another connection's before Qbox listens.
fn address(port: u16, own: Ipv4Addr) -> String {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) if port != 0 => format!("127.0.0.1:{port}"),
        _ => format!("{own}:{LISTEN}"),
    }
}
