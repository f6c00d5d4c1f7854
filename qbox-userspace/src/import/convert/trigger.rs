//! The request that starts a saga. Errors are findings.

use super::super::original::{At, Request};
use super::{Converter, same_name};
use crate::config::{Code, Spot};
use crate::saga::{Segment, TriggerPattern};

impl Converter<'_> {
    pub(super) fn trigger(&mut self, request: &Request) -> Option<TriggerPattern> {
        let spot = Spot::Trigger;
        let url = request.url.value.as_str();
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                let message = format!("a trigger can't be {scheme}: the original never matched it either");
                let help = "write http://; what a pod encrypts itself can't be read on its way";
                self.sink
                    .error(Code::Unsayable, request.url.span.clone(), message, help);
                return None;
            }
            None => {
                self.comment(
                    spot,
                    "Without http:// the original never matched it; it is added.",
                );
                url
            }
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        if path.is_empty() {
            self.comment(
                spot,
                "Without a path the original never matched it; it is `/` now.",
            );
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => match port.parse() {
                Ok(port) if port > 0 => (host, port),
                _ => {
                    let message = format!("`{port}` is not a port");
                    self.sink.error(
                        Code::Unsayable,
                        request.url.span.clone(),
                        message,
                        "write 1 to 65535",
                    );
                    return None;
                }
            },
            _ => (authority, 80),
        };
        if matches!(host, "localhost" | "127.0.0.1") {
            let text = "The original listened here itself. Qbox does not: name the service that callers mean, whose requests are \
                        captured on their way, or run `qbox run --explicit` with this address in [explicit] listen.";
            self.comment(spot, text);
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let spaced = text.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            let (name, value) = (decode(name), decode(value));
            if pairs.iter().any(|(other, _)| *other == name) {
                let message = format!("the query names `{name}` twice");
                self.sink.error(
                    Code::Unsayable,
                    request.url.span.clone(),
                    message,
                    "one of them can be asked for",
                );
                return None;
            }
            pairs.push((name, value));
        }
        if !pairs.is_empty() {
            self.comment(
                spot,
                "Looser than the original: other parameters, and their order, don't matter.",
            );
        }
        let decoded = |segment: &str| {
            percent_encoding::percent_decode_str(segment)
                .decode_utf8_lossy()
                .into_owned()
        };
        let segments = path.strip_prefix('/').unwrap_or_default().split('/');
        let literal = |this: &mut Self, text: &At<String>| {
            if text.value.contains("${") {
                let message = "a trigger takes no expression, so it can't ask for a literal `${`";
                this.sink.error(
                    Code::Unsayable,
                    text.span.clone(),
                    message,
                    "take it out, and match by something else",
                );
            }
            text.value.clone()
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in &request.headers {
            let value = literal(self, value);
            // The original asked for all of them, without case.
            if let Some(other) = same_name(&headers, &name.value) {
                if *other != value {
                    let message = format!(
                        "`{}` is asked for twice, with two values: nothing matched",
                        name.value
                    );
                    self.sink.error(
                        Code::Unsayable,
                        name.span.clone(),
                        message,
                        "take one of them out",
                    );
                }
                continue;
            }
            headers.push((name.value.clone(), value));
        }
        let body = request.body.as_ref().map(|body| literal(self, body));
        Some(TriggerPattern {
            method: Some(request.method.value.clone()),
            host: host.to_ascii_lowercase(),
            port,
            path: segments
                .map(|segment| Segment::Literal(decoded(segment)))
                .collect(),
            query: pairs,
            headers,
            body,
            json: Vec::new(),
            priority: 0,
            dedupe: None,
        })
    }
}
