//! The page: what a browser gets at `/`, and the files that it is made of. All of them are in the binary, so that it works where there
//! is no internet; the libraries among them (`assets/vendor`) are as their makers publish them.
//!
//! The files hold nothing of this node, so nobody is asked for a token: what they draw, they ask the API for. They know nothing of
//! the runner. No errors: a name that is none of theirs is somebody else's to answer.

use super::routes::Shared;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// What the page may load and do (W3C Content Security Policy): its own files, its own API. Text that a caller sent can't become
/// a script even if it became markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal, $kind:ident, $name:literal;)*) => {
        [$(($path, $kind, include_str!(concat!("assets/", $name)))),*]
    };
}

/// Where each file is, its type, and what is in it.
const FILES: [(&str, &str, &str); 20] = files![
    "/", HTML, "index.html";
    "/assets/api.js", SCRIPT, "api.js";
    "/assets/app.js", SCRIPT, "app.js";
    "/assets/definitions.js", SCRIPT, "definitions.js";
    "/assets/graph.js", SCRIPT, "graph.js";
    "/assets/icon.svg", SVG, "icon.svg";
    "/assets/list.js", SCRIPT, "list.js";
    "/assets/node.js", SCRIPT, "node.js";
    "/assets/observed.js", SCRIPT, "observed.js";
    "/assets/rates.js", SCRIPT, "rates.js";
    "/assets/rows.js", SCRIPT, "rows.js";
    "/assets/saga.js", SCRIPT, "saga.js";
    "/assets/style.css", STYLE, "style.css";
    "/assets/theme.js", SCRIPT, "theme.js";
    "/assets/ui.js", SCRIPT, "ui.js";
    "/assets/vendor/dagre.js", SCRIPT, "vendor/dagre.js";
    "/assets/vendor/preact.js", SCRIPT, "vendor/preact.js";
    "/assets/vendor/uplot.css", STYLE, "vendor/uplot.css";
    "/assets/vendor/uplot.js", SCRIPT, "vendor/uplot.js";
    "/assets/waterfall.js", SCRIPT, "waterfall.js";
];

/// The routes of the page.
pub(super) fn routes() -> Router<Arc<Shared>> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            router.route(path, get(async move || file(kind, text)))
        })
}

/// Whether `path` is one of the page's, which anybody may load.
pub(super) fn is_page(path: &str) -> bool {
    FILES.iter().any(|(file, ..)| *file == path)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let fixed = |value| HeaderValue::from_static(value);
    let headers = [
        (header::CONTENT_TYPE, fixed(kind)),
        // Another version of Qbox may answer the next time.
        (header::CACHE_CONTROL, fixed("no-cache")),
        (header::CONTENT_SECURITY_POLICY, fixed(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests;
