//! What is loaded, and how other files come into force while Qbox runs: what is known of services, the definitions, and then the
//! capture of their triggers' ports, so that whatever is captured meets its definition.
//!
//! Files that can't be used change nothing but what is said of them. Sagas that run keep their plan. Everything blocks.

use super::entrance::{Entrance, destinations};
use super::logs;
use crate::admin::{self, Definitions, LoadError};
use crate::config::{self, CaptureMode, Config, Limits, Loaded, LoadedSaga};
use crate::gateway::{self, Definition, Gateway};
use crate::intercept::Capture;
use crate::saga::{Plan, PlanHash, Timestamp};
use crate::upstream::{Services, Upstream};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

/// A definition in force.
struct Held {
    definition: Definition,
    file: String,
    since: Timestamp,
}

/// One for a Qbox.
pub(super) struct Reloader {
    options: super::Options,
    /// As this process began with it; of what can change under way, as it is now.
    state: Mutex<State>,
    gateway: Arc<Gateway>,
    upstream: Upstream,
    /// Gone when Qbox stops, or never there (explicit mode).
    capture: Weak<Capture>,
    level: Arc<logs::Level>,
    /// What the API says.
    told: ArcSwap<Definitions>,
}

struct State {
    config: Config,
    held: Vec<Held>,
    /// As the upstream room has them.
    services: Arc<Services>,
    /// Qbox is stopping: nothing changes any more.
    closed: bool,
}

/// What became of a definition, by the saga's name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits that the gateway holds requests to.
pub(super) fn limits(config: &Config) -> gateway::Settings {
    gateway::Settings {
        trigger_body: config.limits.trigger_body,
        depth: config.limits.depth,
    }
}

impl Reloader {
    /// For definitions that the gateway and the capture already have.
    pub(super) fn new(
        options: super::Options,
        config: Config,
        loaded: Vec<(Definition, String)>,
        gateway: Arc<Gateway>,
        (upstream, services): (Upstream, Arc<Services>),
        entrance: &Entrance,
        level: Arc<logs::Level>,
    ) -> Self {
        let now = now();
        let held: Vec<Held> = loaded
            .into_iter()
            .map(|(definition, file)| Held {
                definition,
                file,
                since: now,
            })
            .collect();
        let told = Definitions {
            definitions: show(&held),
            loaded: now,
            ..Definitions::default()
        };
        Self {
            options,
            state: Mutex::new(State {
                config,
                held,
                services,
                closed: false,
            }),
            gateway,
            upstream,
            capture: entrance.capture(),
            level,
            told: ArcSwap::from_pointee(told),
        }
    }

    /// What is loaded now.
    pub(super) fn told(&self) -> Arc<Definitions> {
        self.told.load_full()
    }

    /// The configuration's file and those that it names, and the folder of the sagas, for whoever watches them.
    pub(super) fn places(&self) -> (Vec<PathBuf>, PathBuf) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let services = state.config.upstream.services.iter();
        let files = services.flat_map(config::Service::files).cloned();
        let files = std::iter::once(self.options.config.clone()).chain(files);
        (files.collect(), state.config.sagas.clone())
    }

    /// Waits for a reload that is under way; there will be no further one.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Reads the files, and brings what has changed into force if all of it can be used.
    pub(super) fn reload(&self) -> Arc<Definitions> {
        // One at a time, reading too: or older files could come into force behind newer ones.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return self.told();
        }
        let done = config::load(&self.options.config)
            .map_err(|report| report.render(false))
            .and_then(|loaded| self.bring_into_force(&mut state, loaded));
        let before = self.told.load_full();
        let told = match done {
            Ok(told) if *before == told => before,
            Ok(told) => Arc::new(told),
            Err(report) => Arc::new(failed(&before, report, &self.options.config)),
        };
        self.told.store(Arc::clone(&told));
        told
    }

    fn bring_into_force(&self, state: &mut State, loaded: Loaded) -> Result<Definitions, String> {
        let Loaded {
            mut config,
            sagas,
            report,
        } = loaded;
        if self.options.explicit {
            config.capture.mode = CaptureMode::Explicit;
        }
        let services = Services::load(&config.upstream.services).map_err(|error| error.to_string())?;
        let known = !services.are(&state.services);
        let now = now();
        let held = hold(&state.held, sagas, now).map_err(|error| error.to_string())?;
        let difference = difference(&state.held, &held);
        let adjusted = limits(&config) != limits(&state.config);
        if adjusted || !difference.is_empty() {
            let exchange = |held: &[Held], config: &Config| {
                let definitions: Vec<Definition> = held.iter().map(|held| held.definition.clone()).collect();
                self.gateway.exchange(&definitions, limits(config));
            };
            exchange(&held, &config);
            if let Err(error) = self.capture(&held) {
                exchange(&state.held, &state.config);
                // Some of the new ones may be captured by now: their requests pass through.
                if let Err(error) = self.capture(&state.held) {
                    tracing::error!(error, "what was captured before may not be");
                }
                return Err(format!("the kernel doesn't take what is to be captured: {error}"));
            }
        }
        let releveled = config.log.level != state.config.log.level;
        if releveled {
            self.level.set(&config.log.level)?;
        }
        if known {
            let services = Arc::new(services);
            self.upstream.know(Arc::clone(&services));
            state.services = services;
        }
        let needs_restart = needs_restart(&state.config, &config);
        let before = self.told.load();
        let moved = config.sagas != state.config.sagas;
        let anything = adjusted || releveled || known || moved || !difference.is_empty();
        if anything || before.error.is_some() || before.needs_restart != needs_restart {
            if !report.diagnostics.is_empty() {
                tracing::warn!("the files can be used, but:\n{}", report.render(false));
            }
            if !needs_restart.is_empty() {
                tracing::warn!(?needs_restart, "changed in qbox.toml, in force after a restart");
            }
            let Difference {
                added,
                changed,
                removed,
            } = &difference;
            tracing::info!(
                sagas = held.len(),
                ?added,
                ?changed,
                ?removed,
                services = known,
                "reloaded"
            );
        }
        let told = Definitions {
            definitions: show(&held),
            loaded: if anything { now } else { before.loaded },
            reloads: before.reloads + u64::from(anything),
            failed: before.failed,
            error: None,
            needs_restart,
        };
        state.held = held;
        state.config = running(&state.config, config);
        Ok(told)
    }

    /// Has the kernel turn what the definitions' triggers name, while there is a capture.
    fn capture(&self, held: &[Held]) -> Result<(), String> {
        let Some(capture) = self.capture.upgrade() else {
            return Ok(());
        };
        let plans = held.iter().map(|held| &*held.definition.plan);
        let set = capture.set_destinations(&destinations(plans));
        set.map_err(|error| error.to_string())
    }
}

fn now() -> Timestamp {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::default().after(wall.unwrap_or_default())
}

/// The same files, read again, are no news.
fn failed(before: &Definitions, report: String, file: &Path) -> Definitions {
    let known = before.error.as_ref().filter(|error| error.report == report);
    let since = known.map_or_else(now, |error| error.since);
    if known.is_none() {
        let kept = before.definitions.len();
        tracing::error!(
            file = %file.display(),
            kept,
            "the files can't be used; what was loaded before is still in force:\n{report}"
        );
    }
    Definitions {
        failed: before.failed + u64::from(known.is_none()),
        error: Some(LoadError { since, report }),
        ..before.clone()
    }
}

/// What is the same as before stays what it was.
fn hold(
    before: &[Held],
    sagas: Vec<LoadedSaga>,
    now: Timestamp,
) -> Result<Vec<Held>, crate::journal::JournalError> {
    let known: HashMap<PlanHash, &Held> = before.iter().map(|held| (held.definition.hash, held)).collect();
    let hold = |saga: LoadedSaga| {
        let definition = Definition::new(saga.plan)?;
        Ok(match known.get(&definition.hash) {
            Some(held) => Held {
                definition: held.definition.clone(),
                file: saga.file,
                since: held.since,
            },
            None => Held {
                definition,
                file: saga.file,
                since: now,
            },
        })
    };
    sagas.into_iter().map(hold).collect()
}

fn show(held: &[Held]) -> Vec<serde_json::Value> {
    let one = |held: &Held| {
        let Definition { plan, hash } = &held.definition;
        admin::definition(plan, &hash.to_string(), &held.file, held.since)
    };
    held.iter().map(one).collect()
}

fn difference(before: &[Held], after: &[Held]) -> Difference {
    let by_name = |held: &[Held]| -> BTreeMap<String, PlanHash> {
        let named = held.iter().map(|held| {
            let plan: &Plan = &held.definition.plan;
            (plan.name.clone(), held.definition.hash)
        });
        named.collect()
    };
    let (before, after) = (by_name(before), by_name(after));
    let mut difference = Difference::default();
    for (name, hash) in &after {
        match before.get(name) {
            None => difference.added.push(name.clone()),
            Some(was) if was != hash => difference.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    difference.removed = gone.cloned().collect();
    difference
}

/// What differs and can't change under way.
fn needs_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    let Config {
        sagas: _,
        log: config::Log { level: _, format },
        limits,
        grace,
        state_dir,
        journal,
        capture,
        kubernetes,
        explicit,
        proxy,
        upstream,
        admin,
        secrets,
        telemetry,
    } = read;
    let same_limits = Limits {
        trigger_body: limits.trigger_body,
        depth: limits.depth,
        ..running.limits.clone()
    };
    let same_upstream = config::Upstream {
        services: upstream.services.clone(),
        ..running.upstream.clone()
    };
    [
        ("grace", *grace != running.grace),
        ("state_dir", *state_dir != running.state_dir),
        ("journal", *journal != running.journal),
        ("capture", *capture != running.capture),
        ("kubernetes", *kubernetes != running.kubernetes),
        ("explicit", *explicit != running.explicit),
        ("limits", *limits != same_limits),
        ("proxy", *proxy != running.proxy),
        ("upstream", *upstream != same_upstream),
        ("admin", *admin != running.admin),
        ("secrets", *secrets != running.secrets),
        ("log.format", *format != running.log.format),
        ("telemetry", *telemetry != running.telemetry),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

/// What runs once `read` is in force: the rest of it as before.
fn running(before: &Config, read: Config) -> Config {
    Config {
        sagas: read.sagas,
        log: config::Log {
            level: read.log.level,
            ..before.log.clone()
        },
        limits: Limits {
            trigger_body: read.limits.trigger_body,
            depth: read.limits.depth,
            ..before.limits.clone()
        },
        upstream: config::Upstream {
            services: read.upstream.services,
            ..before.upstream.clone()
        },
        ..before.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, path: &str) -> LoadedSaga {
        let text = format!(
            "name = \"{name}\"\n[trigger]\nurl = \"http://a/{path}\"\n[[step]]\nname = \"b\"\n\
             request = {{ method = \"PUT\", url = \"http://b/\" }}\n"
        );
        let (plan, _) = config::load_saga(&text, "x.toml").unwrap();
        LoadedSaga {
            plan: Arc::new(plan),
            file: format!("{name}.toml"),
        }
    }

    #[test]
    fn what_stays_the_same_is_as_old_as_it_was() {
        let before = hold(
            &[],
            vec![held("a", "1"), held("b", "2"), held("c", "3")],
            Timestamp(1),
        )
        .unwrap();
        let after = hold(
            &before,
            vec![held("b", "2"), held("c", "4"), held("d", "5")],
            Timestamp(2),
        )
        .unwrap();
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&n| n.to_owned()).collect() };
        assert_eq!(
            difference(&before, &after),
            Difference {
                added: names(&["d"]),
                changed: names(&["c"]),
                removed: names(&["a"]),
            }
        );
        let since: Vec<u64> = after.iter().map(|held| held.since.0).collect();
        assert_eq!(since, [1, 2, 2]);
        assert!(difference(&after, &after).is_empty());
    }

    #[test]
    fn only_what_cannot_change_under_way_asks_for_a_restart() {
        let running = Config::default();
        let mut read = running.clone();
        read.limits.depth = 3;
        read.limits.trigger_body = 1;
        read.log.level = "debug".to_owned();
        read.sagas = "elsewhere".into();
        assert_eq!(needs_restart(&running, &read), [""; 0]);
        assert_eq!(super::running(&running, read.clone()), read);
        read.limits.head = 7;
        read.capture.port = 7;
        assert_eq!(needs_restart(&running, &read), ["capture", "limits"]);
        let now = super::running(&running, read.clone());
        assert_eq!(needs_restart(&now, &read), ["capture", "limits"]);
    }

    #[test]
    fn the_same_mistake_is_told_once() {
        let once = failed(&Definitions::default(), "wrong".to_owned(), Path::new("x"));
        let twice = failed(&once, "wrong".to_owned(), Path::new("x"));
        assert_eq!((once.failed, &once), (1, &twice));
        let other = failed(&once, "wrong too".to_owned(), Path::new("x"));
        assert_eq!(other.failed, 2);
    }
}
