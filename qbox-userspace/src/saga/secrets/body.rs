//! The secret fields of a body.

use super::{MARK, Secrets};
use crate::saga::message::Headers;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

/// What a body is, as far as names tell.
enum Seen<'a> {
    /// Nothing in it has a secret's name.
    Plain,
    /// Readable as JSON.
    Json(Value),
    /// A form (the WHATWG URL Standard's application/x-www-form-urlencoded).
    Form(&'a str),
    /// It may hold a secret, and nobody can say where.
    Opaque,
}

/// Whether it is what stands in the place of a body that is hidden as a whole.
fn is_hidden(body: &[u8]) -> bool {
    let text = std::str::from_utf8(body).ok();
    let length = text.and_then(|text| {
        text.strip_prefix(MARK)?
            .strip_prefix(": ")?
            .strip_suffix(" bytes")
    });
    length.is_some_and(|length| length.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What stands in the place of a body of so many bytes that is hidden as a whole.
pub(super) fn hidden(bytes: usize) -> Bytes {
    Bytes::from(format!("{MARK}: {bytes} bytes"))
}

impl Secrets {
    /// The body without its secret fields; `None`: it has none.
    pub(super) fn hidden_body(&self, headers: &Headers, body: &Bytes) -> Option<Bytes> {
        match self.look(headers, body) {
            Seen::Plain => None,
            Seen::Json(mut document) => {
                let mut path = Vec::new();
                self.hide_fields(&mut document, &mut path)
                    .then(|| Bytes::from(document.to_string()))
            }
            Seen::Form(text) => {
                let is_secret = |name: &str| self.is_query(name) || self.is_field(&[name]);
                self.pairs(text, is_secret).map(Bytes::from)
            }
            Seen::Opaque => Some(hidden(body.len())),
        }
    }

    fn look<'a>(&self, headers: &Headers, body: &'a [u8]) -> Seen<'a> {
        if self.fields.is_empty() || body.is_empty() || is_hidden(body) {
            return Seen::Plain;
        }
        let coded = headers
            .get("content-encoding")
            .is_some_and(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
        let Some(text) = std::str::from_utf8(body).ok().filter(|_| !coded) else {
            return Seen::Opaque;
        };
        let form = headers.get("content-type").is_some_and(|kind| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii()
                .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        });
        // What a client that says nothing else sends, whatever its body is: curl's `-d`. Expressions read it as JSON all the same.
        let is_document = form && text.trim_ascii_start().starts_with(['{', '[']);
        let mentions = (is_document || !form) && self.mentions(text);
        if form && !mentions && !(is_document && serde_json::from_str::<IgnoredAny>(text).is_ok()) {
            return Seen::Form(text);
        }
        if !mentions {
            return Seen::Plain;
        }
        serde_json::from_str(text).map_or(Seen::Opaque, Seen::Json)
    }

    /// Whether a secret field's name is anywhere in the text; what is escaped may be one.
    fn mentions(&self, text: &str) -> bool {
        self.mentioned.as_ref().is_none_or(|names| names.is_match(text))
    }

    /// Whether the field at that place is secret, or part of one that is.
    pub(super) fn is_field<S: AsRef<str>>(&self, place: &[S]) -> bool {
        // A number is an array's index, which no path of ours counts.
        let is_key = |key: &&str| !key.bytes().all(|byte| byte.is_ascii_digit());
        let keys: Vec<&str> = place.iter().map(AsRef::as_ref).filter(is_key).collect();
        (1..=keys.len()).any(|end| keys.get(..end).is_some_and(|keys| self.ends_here(keys)))
    }

    /// Whether the last of these keys is a secret field's.
    fn ends_here(&self, keys: &[&str]) -> bool {
        self.fields.iter().any(|path| {
            let mut keys = keys.iter().rev();
            let mut path = path.iter().rev();
            path.all(|name| keys.next().is_some_and(|key| key.eq_ignore_ascii_case(name)))
        })
    }

    /// Puts the mark in the place of each secret field; says whether there was one. The document's depth is bounded by
    /// its reading (128).
    fn hide_fields(&self, document: &mut Value, path: &mut Vec<String>) -> bool {
        match document {
            Value::Object(map) => {
                let mut any = false;
                for (key, value) in map.iter_mut() {
                    path.push(key.clone());
                    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
                    if self.ends_here(&keys) {
                        // There is nothing to hide in it, and whether it is there may matter.
                        if !value.is_null() {
                            *value = Value::from(MARK);
                            any = true;
                        }
                    } else {
                        any |= self.hide_fields(value, path);
                    }
                    path.pop();
                }
                any
            }
            Value::Array(items) => {
                let hidden = items.iter_mut().map(|item| self.hide_fields(item, path));
                hidden.fold(false, |any, one| any | one)
            }
            _ => false,
        }
    }
}
