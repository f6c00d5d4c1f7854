//! The world of the booking saga: four services in pods of their own, clients, and Qbox.

use crate::node::Node;
use crate::pod::Pod;
use crate::qbox::{Qbox, Settings, workspace};
use crate::service::Service;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;

/// The saga of `config/`, from the workspace's folder.
pub const BOOK_TRIP: &str = "config/sagas/book-trip.toml";

/// Where services listen.
pub const PORT: u16 = 8080;

/// A second port of the service `trips`, which no saga names.
const OTHER_PORT: u16 = 8081;

/// The services: the one that triggers are addressed to, and those that sagas call.
pub const SERVICES: [&str; 4] = ["trips", "hotel", "flight", "car"];

/// All of it, running.
#[derive(Debug)]
pub struct World {
    /// The running Qbox. First, so that it goes first.
    pub qbox: Qbox,
    /// The services, in the order of [`SERVICES`].
    services: Vec<(Pod, Service)>,
    /// A pod without a service.
    pub client: Pod,
    /// Another one.
    pub other: Pod,
    /// Where all of them are.
    pub node: Node,
}

impl World {
    /// Makes the pods, then starts Qbox, then waits until it captures the clients.
    ///
    /// # Errors
    /// See [`Node::new`] and [`Qbox::start`].
    pub fn new(settings: &Settings) -> Result<Self> {
        let node = Node::new()?;
        let serve = |name: &'static str| {
            let pod = node.pod(name)?;
            let listeners = vec![pod.listen(PORT)?, pod.listen(OTHER_PORT)?];
            let service = Service::start(name, listeners)?;
            Ok((pod, service))
        };
        let services = SERVICES.into_iter().map(serve).collect::<Result<Vec<_>>>()?;
        let client = node.pod("client")?;
        let other = node.pod("client-2")?;
        let qbox = Qbox::start(&node, settings)?;
        qbox.wait_for_pod(client.name())?;
        qbox.wait_for_pod(other.name())?;
        Ok(Self {
            qbox,
            services,
            client,
            other,
            node,
        })
    }

    /// With the saga of `config/` as it is.
    ///
    /// # Errors
    /// See [`World::new`].
    pub fn book_trip() -> Result<Self> {
        Self::new(&Settings::saga(book_trip()?))
    }

    /// A service.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn service(&self, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|(pod, _)| pod.name() == name);
        found.map(|(_, service)| service).context("no such service")
    }

    /// A service, to be closed.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn service_mut(&mut self, name: &str) -> Result<&mut Service> {
        let found = self.services.iter_mut().find(|(pod, _)| pod.name() == name);
        found.map(|(_, service)| service).context("no such service")
    }

    /// A service's pod.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn pod_of(&self, name: &str) -> Result<&Pod> {
        let found = self.services.iter().find(|(pod, _)| pod.name() == name);
        found.map(|(pod, _)| pod).context("no such service")
    }

    /// Sends a booking from the client: the answer's status, and its body as JSON (null if it is none).
    ///
    /// # Errors
    /// curl failed.
    pub fn book(&self, id: &str, body: &str) -> Result<(u16, Value)> {
        let url = format!("http://trips.default.svc:{PORT}/trips/{id}");
        let (status, body) = self.client.http(["-X", "POST", &url, "-d", body])?;
        Ok((status, serde_json::from_str(&body).unwrap_or_default()))
    }

    /// The first client, or the second.
    #[must_use]
    pub fn client_number(&self, number: usize) -> &Pod {
        if number == 0 { &self.client } else { &self.other }
    }

    /// Which of hotel, flight and car have booked the id.
    #[must_use]
    pub fn booked(&self, id: &str) -> Vec<&'static str> {
        let all = self.services.iter().map(|(_, service)| service);
        all.filter(|service| service.has(id)).map(Service::name).collect()
    }
}

/// The text of the saga in `config/`.
///
/// # Errors
/// The file can't be read.
pub fn book_trip() -> Result<String> {
    let path = workspace().join(BOOK_TRIP);
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

/// The same with `durability = "none"`.
///
/// # Errors
/// As [`book_trip`].
pub fn book_trip_in_memory() -> Result<String> {
    Ok(book_trip()?.replacen("order ", "durability = \"none\"\norder ", 1))
}
