//! What Qbox says became of each saga: its lists, and each saga's history, as an operator reads them from the admin API.
//! Whether that is true is for [`super::judge`].

use super::trip::{Kind, Step};
use crate::admin::Admin;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Committed,
    Compensated,
    Stuck,
    /// It has not ended, and is not stuck.
    Open,
}

/// One saga.
#[derive(Debug, Clone)]
pub(super) struct Saga {
    pub(super) kind: Kind,
    pub(super) trip: u64,
    pub(super) end: End,
    /// The steps that are stuck.
    pub(super) stuck: Vec<Step>,
    /// How many restarts it has lived through.
    pub(super) restarts: u64,
}

/// By id.
pub(super) type Sagas = BTreeMap<String, Saga>;

/// Where each saga in the list stands, which is all that Qbox still keeps.
pub(super) fn list(admin: &Admin) -> Result<BTreeMap<String, End>> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = admin.json(&format!("/api/v1/sagas?limit=1000&sort=arrived{cursor}"))?;
        let sagas = page
            .get("sagas")
            .and_then(Value::as_array)
            .context("a list without sagas")?;
        for saga in sagas {
            let id = text(saga, "id").context("a saga without an id")?;
            found.insert(id, end_of(saga));
        }
        match text(&page, "next") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn end_of(saga: &Value) -> End {
    match text(saga, "state").as_deref() {
        Some("committed") => End::Committed,
        Some("compensated") => End::Compensated,
        // A stuck saga without its cause is as good as not listed.
        Some("stuck") if text(saga, "cause").is_some_and(|cause| !cause.is_empty()) => End::Stuck,
        _ => End::Open,
    }
}

fn trip_of(url: &str) -> Option<u64> {
    url.rsplit('/').next()?.parse().ok()
}

/// The sagas of those ids, with their histories, one by one; ids that Qbox doesn't know are left out.
pub(super) fn shown<'a>(admin: &Admin, ids: impl IntoIterator<Item = &'a String>) -> Result<Sagas> {
    let mut found = Sagas::new();
    for id in ids {
        let answer = admin.get(&format!("/api/v1/sagas/{id}"))?;
        match answer.status {
            200 => {
                let view = serde_json::from_str(&answer.body)?;
                let saga = from_view(&view).with_context(|| format!("saga {id} in the API"))?;
                found.insert(id.clone(), saga);
            }
            404 => {}
            status => bail!("the API answers {status} for saga {id}: {}", answer.body),
        }
    }
    Ok(found)
}

fn from_view(view: &Value) -> Result<Saga> {
    let kind = text(view, "name")
        .and_then(|name| Kind::named(&name))
        .context("no such saga")?;
    let events = view
        .get("events")
        .and_then(Value::as_array)
        .context("no events")?;
    let of_kind = |kind: &'static str| {
        events
            .iter()
            .filter(move |event| text(event, "kind").as_deref() == Some(kind))
    };
    let stuck = of_kind("stuck").filter_map(|event| {
        let name = text(event, "step")?;
        kind.steps().iter().find(|step| **step == name).copied()
    });
    let url = of_kind("began").find_map(|event| text(event, "url"));
    Ok(Saga {
        kind,
        trip: url
            .and_then(|url| trip_of(&url))
            .context("its trigger names no trip")?,
        end: end_of(view),
        stuck: stuck.collect(),
        restarts: of_kind("recovered").count() as u64,
    })
}
