//! Requests, what answers are held against, and replies, with their templates. Errors are findings.

use super::super::expressions::{self, Site};
use super::super::original::{At, Request, Response};
use super::{Converter, same_name};
use crate::config::{Code, Spot};
use crate::saga::{
    BodyTemplate, Place, ReplyPlan, ReplyTemplate, RequestTemplate, ResponseMatch, Scheme, Scope, StatusSet,
    Template, UrlTemplate,
};
use std::ops::Range;

/// Headers that Qbox writes itself, beside `X-Qbox-…`; a saga file can't (see `config`).
const WRITTEN: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Converter<'_> {
    pub(super) fn request(
        &mut self,
        request: &Request,
        site: Site,
        place: Place,
        spot: Spot,
    ) -> Option<RequestTemplate> {
        let url = request.url.value.as_str();
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((scheme, _)) => {
                let message = format!("`{scheme}` is not a scheme that Qbox speaks");
                self.sink.error(
                    Code::Unsayable,
                    request.url.span.clone(),
                    message,
                    "write http://HOST/PATH",
                );
                return None;
            }
            None => {
                self.comment(
                    spot,
                    "Without http:// the original could not send it; it is added.",
                );
                (Scheme::Http, url)
            }
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains("${") {
            let message = "a URL's host takes no expression: a message must not choose where Qbox sends";
            let help = "write a transaction for each host; a saga file's steps can have conditions (`when`)";
            self.sink
                .error(Code::Unsayable, request.url.span.clone(), message, help);
            return None;
        }
        let (path, query) = split_query(target);
        let path = match path {
            "" => Some(Template::literal("/")),
            path => self.template(path, &request.url.span, site, place, spot),
        };
        let query = match query {
            Some(query) => Some(self.template(query, &request.url.span, site, place, spot)?),
            None => None,
        };
        let headers = self.headers(&request.headers, site, place, spot);
        let body = match &request.body {
            Some(body) => self
                .template(&body.value, &body.span, site, place, spot)
                .map(BodyTemplate::Text),
            None => Some(BodyTemplate::Empty),
        };
        Some(RequestTemplate {
            method: request.method.value.clone(),
            url: UrlTemplate {
                scheme,
                authority: authority.to_owned(),
                path: path?,
                query,
            },
            headers: headers?,
            body: body?,
        })
    }

    fn headers(
        &mut self,
        headers: &[(At<String>, At<String>)],
        site: Site,
        place: Place,
        spot: Spot,
    ) -> Option<Vec<(String, Template)>> {
        let sent = !matches!(site, Site::Answer | Site::UndoAnswer);
        let mut found: Vec<(String, Template)> = Vec::new();
        for (name, value) in headers {
            let lower = name.value.to_ascii_lowercase();
            let ours = lower.starts_with("x-qbox-") && site != Site::Reply;
            if sent && (WRITTEN.contains(&lower.as_str()) || ours) {
                self.comment(
                    spot,
                    format!("`{}` is written by Qbox itself, and taken out here.", name.value),
                );
                continue;
            }
            if same_name(&found, &name.value).is_some() {
                let message = format!(
                    "`{}` stands here twice: names of headers match without case",
                    name.value
                );
                self.sink.error(
                    Code::Unsayable,
                    name.span.clone(),
                    message,
                    "take one of them out",
                );
                return None;
            }
            found.push((
                name.value.clone(),
                self.template(&value.value, &value.span, site, place, spot)?,
            ));
        }
        Some(found)
    }

    pub(super) fn matches(
        &mut self,
        any: &[Response],
        site: Site,
        place: Place,
        spot: Spot,
    ) -> Option<Vec<ResponseMatch>> {
        let read: Vec<_> = any
            .iter()
            .map(|one| {
                let status = u16::try_from(one.status.value).ok()?;
                let body = match &one.body {
                    Some(body) => Some(self.template(&body.value, &body.span, site, place, spot)?),
                    None => None,
                };
                Some(ResponseMatch {
                    status: Some(StatusSet {
                        ranges: vec![(status, status)],
                        except: Vec::new(),
                    }),
                    headers: self.headers(&one.headers, site, place, spot)?,
                    body,
                    json: Vec::new(),
                })
            })
            .collect();
        read.into_iter().collect()
    }

    pub(super) fn reply(&mut self, reply: &Response, spot: Spot) -> Option<ReplyPlan> {
        let (site, place) = (Site::Reply, Place::Reply);
        let headers = self.headers(&reply.headers, site, place, spot);
        let body = match &reply.body {
            Some(body) => self
                .template(&body.value, &body.span, site, place, spot)
                .map(BodyTemplate::Text),
            None => Some(BodyTemplate::Empty),
        };
        Some(ReplyPlan::Send(ReplyTemplate {
            status: u16::try_from(reply.status.value).ok()?,
            headers: headers?,
            body: body?,
        }))
    }

    fn template(
        &mut self,
        text: &str,
        span: &Range<usize>,
        site: Site,
        place: Place,
        spot: Spot,
    ) -> Option<Template> {
        let converted = expressions::convert(text, site, &self.steps);
        for dead in &converted.dead {
            self.comment(
                spot,
                format!("`{dead}` never had a value in the original, so its default stands here."),
            );
        }
        self.empties |= converted.empties;
        if let Some(what) = converted.unsayable {
            let help = "write it in another way: docs/saga-reference.md has the expressions of a saga file";
            self.sink.error(
                Code::Unsayable,
                span.clone(),
                format!("a saga file can't say this: {what}"),
                help,
            );
            return None;
        }
        let scope = Scope {
            steps: &self.steps,
            place,
        };
        Template::parse(&converted.text, &scope)
            .map_err(|error| {
                let message = format!("a saga file can't say this: {error}");
                self.sink.error(
                    Code::Unsayable,
                    span.clone(),
                    message,
                    error.suggestion.unwrap_or_default(),
                );
            })
            .ok()
    }
}

/// A target's path and query; a `?` in an interpolation is none.
fn split_query(target: &str) -> (&str, Option<&str>) {
    let mut inside = false;
    for (at, c) in target.char_indices() {
        match c {
            '$' if target.get(at..).is_some_and(|rest| rest.starts_with("${")) => inside = true,
            '}' => inside = false,
            '?' if !inside => {
                let (path, query) = target.split_at(at);
                return (path, query.strip_prefix('?'));
            }
            _ => {}
        }
    }
    (target, None)
}
