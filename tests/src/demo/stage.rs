//! Where the demo plays: in pods, or on loopback addresses without root.

use super::{REFUSED_CAR, page, wish};
use crate::admin::Admin;
use crate::explicit::ExplicitWorld;
use crate::node::require_root;
use crate::pod::split_status;
use crate::qbox::{Qbox, binary, workspace};
use crate::service::{Act, Service};
use crate::world::World;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// The services whose ledgers are shown.
const BOOKING: [&str; 3] = ["hotel", "flight", "car"];

/// What a saga's trigger is addressed to.
const TRIPS: &str = "trips.default.svc:8080";

/// One of the two.
pub(super) enum Stage {
    Pods(Box<World>),
    Explicit(ExplicitWorld),
}

impl Stage {
    /// Starts everything.
    pub(super) fn set(explicit: bool) -> Result<Self> {
        let stage = if explicit {
            Self::Explicit(ExplicitWorld::new(3001)?)
        } else {
            require_root()?;
            Self::Pods(Box::new(World::book_trip()?))
        };
        stage.service("car")?.script(|asked| {
            let class = serde_json::from_str::<Value>(&asked.body).ok();
            let class = class
                .as_ref()
                .and_then(|body| body.get("class"))
                .and_then(Value::as_str);
            match (asked.method.as_str(), class) {
                ("PUT", Some(REFUSED_CAR)) => Act::Refuse(409),
                _ => Act::Serve,
            }
        });
        Ok(stage)
    }

    fn service(&self, name: &str) -> Result<&Service> {
        match self {
            Self::Pods(world) => world.service(name),
            Self::Explicit(world) => world.service(name),
        }
    }

    fn qbox(&self) -> &Qbox {
        match self {
            Self::Pods(world) => &world.qbox,
            Self::Explicit(world) => &world.qbox,
        }
    }

    pub(super) fn admin(&self) -> &Admin {
        self.qbox().admin()
    }

    /// Where a browser on this machine finds the page.
    pub(super) fn page(&self) -> Result<SocketAddr> {
        let status = self.admin().json("/api/v1/status")?;
        let address = status.get("admin").and_then(Value::as_str);
        let address = address.context("Qbox doesn't say where its API is")?.parse()?;
        match self {
            // Its address is one of its own network.
            Self::Pods(world) => page::open(world.node.namespace().try_clone()?, address),
            Self::Explicit(_) => Ok(address),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Pods(world) => format!(
                "Each is in a pod of its own, and so are two clients; Qbox's programs are attached to the cgroup {} alone.",
                world.node.cgroup().display()
            ),
            Self::Explicit(world) => format!(
                "No eBPF and no pods: Qbox listens on {}, and clients send to it what they would send to a service.",
                world.listen
            ),
        }
    }

    /// The names of the services and what each has booked.
    pub(super) fn ledgers(&self) -> Vec<(&'static str, Vec<String>)> {
        let found = BOOKING.iter().filter_map(|name| self.service(name).ok());
        found.map(|service| (service.name(), service.ledger())).collect()
    }

    pub(super) fn booked(&self, trip: &str) -> Vec<&'static str> {
        let ledgers = self.ledgers().into_iter();
        let with = ledgers.filter(|(_, ids)| ids.iter().any(|id| id == trip));
        with.map(|(name, _)| name).collect()
    }

    fn words(&self, trip: &str, car: &str) -> Vec<String> {
        let mut words = ["curl", "-X", "POST"].map(str::to_owned).to_vec();
        match self {
            Self::Pods(_) => words.push(format!("http://{TRIPS}/trips/{trip}")),
            Self::Explicit(world) => {
                words.push(format!("http://{}/trips/{trip}", world.listen));
                words.extend(["-H".to_owned(), format!("Host: {TRIPS}")]);
            }
        }
        words.extend(["-d".to_owned(), wish(car)]);
        words
    }

    /// What runs, as one would type it.
    pub(super) fn curl_line(&self, pod: usize, trip: &str, car: &str) -> String {
        let line = quoted(&self.words(trip, car));
        match self {
            Self::Pods(world) => format!("{}$ {line}", world.client_number(pod).name()),
            Self::Explicit(_) => format!("$ {line}"),
        }
    }

    /// What a user types in another terminal.
    pub(super) fn command_line(&self, trip: &str, car: &str) -> String {
        let line = quoted(&self.words(trip, car));
        match self {
            Self::Pods(world) => {
                let binary = binary().unwrap_or_else(|_| PathBuf::from("qbox"));
                let shown = binary.strip_prefix(workspace()).unwrap_or(&binary);
                format!(
                    "{} exec --socket {} --pod {} -- {line}",
                    shown.display(),
                    world.qbox.socket().display(),
                    world.client.name()
                )
            }
            Self::Explicit(_) => line,
        }
    }

    /// Sends a booking. Gives back the status and the body.
    pub(super) fn curl(&self, pod: usize, trip: &str, car: &str) -> Result<(u16, String)> {
        let mut words = self.words(trip, car);
        words.extend(["--silent", "--show-error", "--write-out", "\n%{http_code}"].map(str::to_owned));
        let output = match self {
            Self::Pods(world) => world.client_number(pod).run(words)?.ok()?,
            Self::Explicit(_) => {
                let (program, rest) = words.split_first().context("no words")?;
                let output = Command::new(program)
                    .args(rest)
                    .output()
                    .context("can't start curl")?;
                ensure!(
                    output.status.success(),
                    "curl: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                String::from_utf8(output.stdout)?
            }
        };
        split_status(&output)
    }

    /// Stops Qbox in good order; all else goes when this is dropped.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Self::Pods(world) => world.qbox.end(),
            Self::Explicit(world) => world.qbox.end(),
        }
    }
}

/// As a shell reads it.
fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:%".contains(c);
    let quoted = words
        .iter()
        .map(|word| match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words = ["printf", "%s|", "it's", "{\"a\": 1}", "$HOME", ""].map(str::to_owned);
        let output = Command::new("sh").args(["-c", &quoted(&words)]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "it's|{\"a\": 1}|$HOME||"
        );
    }
}
