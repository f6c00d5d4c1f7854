//! `GET /api/v1/sagas`: sagas that a filter holds for, sorted, page by page. A page's cursor is the place of its last saga, so that
//! what comes or goes meanwhile moves none of the others.

use super::problem::{Refusal, problem};
use super::query::Parameters;
use super::routes::Shared;
use crate::journal::{Page, Place, Sort};
use crate::runner::Summary;
use crate::saga::{SagaId, Timestamp};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

/// How many sagas a page holds, unless asked for fewer or more; and the most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// What a list can be sorted by; with `-` before it, the last first.
const SORTS: [(&str, Sort); 3] = [
    ("arrived", Sort::Began),
    ("ended", Sort::Ended),
    ("name", Sort::Name),
];

/// A page.
#[derive(Debug, Serialize)]
struct SagaPage {
    sagas: Vec<Summary>,
    /// The next page's cursor; none: this is the last.
    next: Option<String>,
}

/// The route.
pub(super) async fn sagas(
    State(shared): State<Arc<Shared>>,
    mut asked: Parameters,
) -> Result<Response, Refusal> {
    let limit = asked.count("limit", MAX_PAGE)?.unwrap_or(PAGE);
    let (sort, descending) = asked.read("sort", sort)?.unwrap_or((Sort::Began, true));
    let after = asked.read("cursor", |text| place(sort, text))?;
    let filter = asked.filter()?;
    asked.done()?;
    let page = Page {
        sort,
        descending,
        after,
        // One more, which says that there is a next page.
        limit: limit + 1,
    };
    let wrong =
        |error: &dyn std::fmt::Display| problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
    // It reads the disk.
    let found = tokio::task::spawn_blocking(move || shared.runner.sagas(&filter, &page)).await;
    let mut sagas = match found {
        Ok(Ok(sagas)) => sagas,
        Ok(Err(error)) => return Err(wrong(&error).into()),
        Err(error) => return Err(wrong(&error).into()),
    };
    let more = sagas.len() > limit;
    sagas.truncate(limit);
    let last = sagas.last().filter(|_| more);
    let next = last.map(|last| cursor(&Place::new(sort, last.id, last.ended, &last.name)));
    Ok(Json(SagaPage { sagas, next }).into_response())
}

fn sort(text: &str) -> Result<(Sort, bool), &'static str> {
    let (word, descending) = match text.strip_prefix('-') {
        Some(word) => (word, true),
        None => (text, false),
    };
    let found = SORTS.iter().find(|(name, _)| *name == word);
    let (_, sort) = found.ok_or("sort by arrived, ended or name; with - before it, the last first")?;
    Ok((*sort, descending))
}

/// A place as a word. Its form is nobody's business but [`place`]'s.
fn cursor(place: &Place) -> String {
    match place {
        Place::Began(id) => id.to_string(),
        Place::Ended(at, id) => format!("{}.{id}", at.0),
        Place::Name(name, id) => format!("{name}.{id}"),
    }
}

fn place(sort: Sort, text: &str) -> Result<Place, &'static str> {
    let read = || {
        let (key, id) = text.rsplit_once('.').unwrap_or(("", text));
        let id: SagaId = id.parse().ok()?;
        match sort {
            Sort::Began if key.is_empty() => Some(Place::Began(id)),
            Sort::Began => None,
            Sort::Ended => Some(Place::Ended(Timestamp(key.parse().ok()?), id)),
            Sort::Name => Some(Place::Name(key.to_owned(), id)),
        }
    };
    read().ok_or("that is no `next` of a list that is sorted so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_place() {
        let id = SagaId(7 << 64 | 9);
        for (sort, place) in [
            (Sort::Began, Place::Began(id)),
            (Sort::Ended, Place::Ended(Timestamp(u64::MAX), id)),
            (Sort::Name, Place::Name("book.trip".to_owned(), id)),
        ] {
            assert_eq!(super::place(sort, &cursor(&place)), Ok(place));
        }
        let ended = cursor(&Place::Ended(Timestamp(5), id));
        assert!(place(Sort::Began, &ended).is_err(), "of another list");
        assert!(place(Sort::Ended, "x.y").is_err());
        assert!(place(Sort::Ended, &id.to_string()).is_err());
    }

    #[test]
    fn sorts_are_words() {
        assert_eq!(sort("-ended"), Ok((Sort::Ended, true)));
        assert_eq!(sort("name"), Ok((Sort::Name, false)));
        assert!(sort("duration").is_err());
    }
}
