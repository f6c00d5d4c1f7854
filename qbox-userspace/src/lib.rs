//! Qbox: a saga execution coordinator that takes a pod's own requests as its triggers.
//!
//! The rooms, and who may use whom (left may use right, never back; `cargo xtask lint` checks it):
//!
//! ```text
//! main → app → { admin, gateway }
//! gateway → { proxy, runner, observe }      admin → { runner, observe }      observe → plan
//! runner → { journal, saga, upstream, telemetry, keys }    telemetry → upstream    journal → saga (events only)    saga → std, serde
//! proxy → { intercept, upstream }         intercept → qbox-common      kubernetes → { intercept (its policy), config }
//! netns, keys, durations, causes, allocations, workers: leaves      config → keys (and fills saga's plan)
//! plan, import → saga, config
//! sim → saga, config, journal: tests alone
//! ```

pub mod admin;
pub mod allocations;
pub mod app;
mod causes;
pub mod cli;
pub mod config;
pub mod durations;
pub mod gateway;
pub mod import;
pub mod intercept;
pub mod journal;
pub mod keys;
pub mod kubernetes;
pub mod netns;
pub mod observe;
pub mod outbox;
pub mod plan;
pub mod proxy;
pub mod runner;
pub mod saga;
#[cfg(test)]
mod sim;
pub mod telemetry;
pub mod upstream;
pub mod workers;
