//! The booking saga without root: services on loopback addresses of their own, and Qbox with a plain port.

use crate::leftovers;
use crate::qbox::{Qbox, Settings};
use crate::service::Service;
use crate::world::{PORT, SERVICES, book_trip};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;

/// All of it, running.
#[derive(Debug)]
pub struct ExplicitWorld {
    /// The running Qbox. First, so that it goes first.
    pub qbox: Qbox,
    /// Where it listens.
    pub listen: String,
    services: Vec<Service>,
    _folder: TempDir,
}

impl ExplicitWorld {
    /// Starts the services and Qbox, with the saga of `config/`, on `port` of 127.0.0.1 if nobody has that (0: on any).
    ///
    /// # Errors
    /// Another program listens on port 8080 of all addresses, or Qbox doesn't start.
    pub fn new(port: u16) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", leftovers::fresh_name()))
            .tempdir()?;
        // All of 127/8 is this machine; what process id and count choose of it is hardly anybody else's.
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let first = COUNT.fetch_add(1, Ordering::Relaxed) % 60 * 4 + 2;
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
        let hosts_file = folder.path().join("hosts");
        fs::write(&hosts_file, hosts)?;
        let listen = free_address(port)?;
        let qbox = Qbox::start_explicit(folder.path(), &hosts_file, &listen, &Settings::saga(book_trip()?))?;
        Ok(Self {
            qbox,
            listen,
            services,
            _folder: folder,
        })
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

/// That port if nobody has it, else one that the kernel chooses.
fn free_address(port: u16) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no port is free")?;
    Ok(listener.local_addr()?.to_string())
}
