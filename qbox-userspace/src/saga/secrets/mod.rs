//! Which parts of a message are secret, and messages as people may see them: with [`MARK`] in each secret's place.
//!
//! Header fields go by their names, query parameters by theirs, and fields of a body by theirs where it is JSON or a form.
//! What can't be looked into and names such a field is taken to be secret as a whole. What a value *is* nobody knows: a
//! secret in a place that isn't named is shown. Pure, and without errors.

mod body;
mod needs;
mod rest;

pub use needs::Needs;
pub use rest::{Apart, whole};

#[cfg(test)]
mod tests;

use super::event::{AttemptEnd, Event};
use super::expr::{MessagePart, Source, Template};
use super::io::Call;
use super::message::{Headers, Request, Response, Trigger};
use super::plan::{Plan, UrlTemplate};
use super::values::form_decode;
use aho_corasick::AhoCorasick;
use bytes::Bytes;
use std::borrow::Cow;

/// What stands in a secret's place.
pub const MARK: &str = "[redacted]";

/// Fields that are secret whatever a file says: credentials by their definition (RFC 9110, 11.6.2 and 11.7.2; RFC 6265).
const ALWAYS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// The names of what is secret.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Lower case, as are all below.
    headers: Vec<String>,
    /// Each a field's name behind those of the objects around it, as far as they matter.
    fields: Vec<Vec<String>>,
    query: Vec<String>,
    /// Finds a field's name, or the beginning of what may be one escaped; `None` if that can't be made, and anything may be there.
    mentioned: Option<AhoCorasick>,
}

/// What is made of the names follows from them.
impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        (&self.headers, &self.fields, &self.query) == (&other.headers, &other.fields, &other.query)
    }
}

impl Eq for Secrets {}

impl Default for Secrets {
    fn default() -> Self {
        Self::new(Self::HEADERS, Self::JSON, Self::QUERY)
    }
}

impl Secrets {
    /// `secrets.headers` where a file doesn't say.
    pub const HEADERS: [&'static str; 4] = [
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
        "x-amz-security-token",
    ];
    /// `secrets.json` where a file doesn't say.
    pub const JSON: [&'static str; 6] = [
        "password",
        "client_secret",
        "access_token",
        "refresh_token",
        "id_token",
        "api_key",
    ];
    /// `secrets.query` where a file doesn't say.
    pub const QUERY: [&'static str; 4] = ["access_token", "api_key", "password", "signature"];

    /// Header fields (and always those that hold credentials by definition), fields of bodies (`password`, `card.number`:
    /// at any depth, through arrays), query parameters. Case doesn't matter.
    pub fn new<S: AsRef<str>>(
        headers: impl IntoIterator<Item = S>,
        json: impl IntoIterator<Item = S>,
        query: impl IntoIterator<Item = S>,
    ) -> Self {
        let lower = |name: S| name.as_ref().to_ascii_lowercase();
        let always = ALWAYS.into_iter().map(str::to_owned);
        let path = |name: S| lower(name).split('.').map(str::to_owned).collect();
        let fields: Vec<Vec<String>> = json.into_iter().map(path).collect();
        let names = fields.iter().filter_map(|path| path.last()).map(String::as_str);
        let mentioned = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(names.chain(["\\u"]));
        Self {
            headers: always.chain(headers.into_iter().map(lower)).collect(),
            mentioned: mentioned.ok(),
            fields,
            query: query.into_iter().map(lower).collect(),
        }
    }

    /// Whether a header field of that name is secret.
    #[must_use]
    pub fn is_header(&self, name: &str) -> bool {
        self.headers.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn is_query(&self, name: &str) -> bool {
        self.query.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The event as people may see it.
    #[must_use]
    pub fn event(&self, event: &Event) -> Event {
        let mut shown = event.clone();
        match &mut shown {
            Event::Began { trigger, .. } => self.trigger(trigger),
            Event::Ended {
                end: AttemptEnd::Answered(response),
                ..
            } => self.response(response),
            _ => {}
        }
        shown
    }

    /// A trigger as people may see it. What a saga would make of it holds none of its secrets.
    #[must_use]
    pub fn shown_trigger(&self, trigger: &Trigger) -> Trigger {
        let mut shown = trigger.clone();
        self.trigger(&mut shown);
        shown
    }

    /// A request as people may see it, as far as its own names tell.
    #[must_use]
    pub fn shown_request(&self, request: &Request) -> Request {
        let mut shown = request.clone();
        self.request(&mut shown);
        shown
    }

    /// A body as people may see it.
    #[must_use]
    pub fn shown_body(&self, headers: &Headers, body: &Bytes) -> Bytes {
        self.hidden_body(headers, body).unwrap_or_else(|| body.clone())
    }

    fn trigger(&self, trigger: &mut Trigger) {
        self.request(&mut trigger.request);
    }

    fn request(&self, request: &mut Request) {
        if let Some(hidden) = self.hidden_body(&request.headers, &request.body) {
            request.body = hidden;
        }
        self.hide_headers(&mut request.headers);
        if let Cow::Owned(hidden) = self.url(&request.url) {
            request.url = hidden;
        }
    }

    /// A call's request as people may see it: what its own names tell is hidden, and what was filled in from a secret, whatever
    /// it is called there.
    #[must_use]
    pub fn request_of(&self, plan: &Plan, call: &Call) -> Request {
        let mut shown = Request::clone(&call.request);
        self.request(&mut shown);
        shown.url = self.url_of(plan, call);
        let step = plan.steps.get(call.step.index());
        let Some(template) = step.and_then(|step| step.template(call.direction)) else {
            return shown;
        };
        for (name, value) in &template.headers {
            if self.names_any(value) {
                let fields = shown.headers.0.iter_mut();
                for (_, value) in fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    *value = Bytes::from_static(MARK.as_bytes());
                }
            }
        }
        let mut secret = false;
        template
            .body
            .each_text(&mut |text| secret |= self.names_any(text));
        if secret {
            shown.body = body::hidden(call.request.body.len());
        }
        shown
    }

    /// The answer as people may see it.
    pub fn response(&self, response: &mut Response) {
        if let Some(hidden) = self.hidden_body(&response.headers, &response.body) {
            response.body = hidden;
        }
        self.hide_headers(&mut response.headers);
    }

    fn hide_headers(&self, headers: &mut Headers) {
        for (name, value) in &mut headers.0 {
            if self.is_header(name) {
                *value = Bytes::from_static(MARK.as_bytes());
            }
        }
    }

    /// The URL without user information (RFC 3986, 3.2.1) and secret parameters.
    #[must_use]
    pub fn url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let (before, query) = match url.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (url, None),
        };
        let user = before.split_once("://").and_then(|(scheme, rest)| {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (_, host) = authority.rsplit_once('@')?;
            Some(format!("{scheme}://{MARK}@{host}{path}"))
        });
        let hidden = query.and_then(|query| self.pairs(query, |name| self.is_query(name)));
        if user.is_none() && hidden.is_none() {
            return Cow::Borrowed(url);
        }
        let before = user.unwrap_or_else(|| before.to_owned());
        Cow::Owned(match hidden.as_deref().or(query) {
            Some(query) => format!("{before}?{query}"),
            None => before,
        })
    }

    /// The pairs of a query or form with the values of those that are secret hidden; `None`: there are none such.
    fn pairs(&self, text: &str, is_secret: impl Fn(&str) -> bool) -> Option<String> {
        let mut any = false;
        let pairs: Vec<Cow<'_, str>> = text
            .split('&')
            .map(|pair| match pair.split_once('=') {
                // A name that can't be read may be any.
                Some((name, _)) if form_decode(name).is_none_or(|read| is_secret(&read)) => {
                    any = true;
                    Cow::Owned(format!("{name}={MARK}"))
                }
                _ => Cow::Borrowed(pair),
            })
            .collect();
        any.then(|| pairs.join("&"))
    }

    /// The URL of a call as people may see it: where a secret was filled in, with the expressions of the file.
    #[must_use]
    pub fn url_of(&self, plan: &Plan, call: &Call) -> String {
        let step = plan.steps.get(call.step.index());
        let template = step.and_then(|step| Some(&step.template(call.direction)?.url));
        let secret = |url: &&UrlTemplate| {
            self.names_any(&url.path) || url.query.as_ref().is_some_and(|query| self.names_any(query))
        };
        match template.filter(secret) {
            Some(url) => url.to_string(),
            None => self.url(&call.request.url).into_owned(),
        }
    }

    /// Whether an expression speaks of a secret by its name, or of all of a message.
    fn names(&self, source: &Source) -> bool {
        let (Source::Trigger(part) | Source::Request(_, part) | Source::Response(_, part)) = source else {
            return false;
        };
        match part {
            MessagePart::Header(name) => self.is_header(name),
            MessagePart::Query(name) => self.is_query(name),
            MessagePart::Json(path) if path.0.is_empty() => !self.fields.is_empty(),
            MessagePart::Json(path) => self.is_field(&path.0),
            MessagePart::Url => !self.query.is_empty(),
            MessagePart::Body => !self.fields.is_empty(),
            MessagePart::Method | MessagePart::Path(_) | MessagePart::Status => false,
        }
    }

    /// Whether a template holds a secret once it is filled in, as far as names can tell.
    fn names_any(&self, template: &Template) -> bool {
        template.exprs().any(|expr| self.names(&expr.source))
    }
}
