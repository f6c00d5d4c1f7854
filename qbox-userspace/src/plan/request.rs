//! A request as people write it down, and as editors' `.http` files have it: a line with the method and the URL, header
//! fields, an empty line, the body.

use crate::saga::{self, RequestHead, Trigger, TriggerPattern, match_body, match_head};
use bytes::Bytes;

/// A request that was read from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRequest {
    /// As it stands there.
    pub method: String,
    /// A whole URL, or a path where there is a `Host`.
    pub target: String,
    /// In order.
    pub headers: Vec<(String, String)>,
    /// All behind the empty line, but for one line break at the end.
    pub body: String,
}

/// Why a text is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct RequestError {
    /// From 1.
    pub line: usize,
    /// What is wrong, and how to mend it.
    pub what: String,
}

/// Reads a request. Empty lines and lines that begin with `#` or `//` may come before it.
///
/// # Errors
/// No request line, or a line among the fields that is none.
pub fn read_request(text: &str) -> Result<TextRequest, RequestError> {
    let error = |line: usize, what: &str| RequestError {
        line,
        what: what.to_owned(),
    };
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').zip(1..);
    // A line without its line break; `at` is where the next one begins.
    let mut next = || {
        let (whole, number) = lines.next()?;
        at += whole.len();
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        Some((line.strip_suffix('\r').unwrap_or(line), number, at))
    };
    let (method, target) = loop {
        let Some((line, number, _)) = next() else {
            return Err(error(1, "there is no request: write `POST http://HOST/PATH`"));
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
            continue;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [method, target] => break (*method, *target),
            [method, target, version] if version.starts_with("HTTP/") => break (*method, *target),
            _ => {
                return Err(error(
                    number,
                    "a request begins with its method and its URL: `POST http://HOST/PATH`",
                ));
            }
        }
    };
    let mut headers = Vec::new();
    let mut body = text.len();
    while let Some((line, number, behind)) = next() {
        if line.is_empty() {
            body = behind;
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(error(
                number,
                "a header field is `NAME: VALUE`; an empty line comes before the body",
            ));
        };
        let value = value.trim();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err()
            || http::HeaderValue::from_str(value).is_err()
        {
            return Err(error(
                number,
                "this can't be a header field: a name of letters, digits and `-`, a colon, one line",
            ));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let body = text.get(body..).unwrap_or_default();
    let body = body.strip_suffix('\n').unwrap_or(body);
    Ok(TextRequest {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: body.strip_suffix('\r').unwrap_or(body).to_owned(),
    })
}

impl TextRequest {
    /// The trigger that this request is for `pattern`.
    ///
    /// # Errors
    /// It is none: says what keeps it from matching, each a sentence.
    pub fn trigger(&self, pattern: &TriggerPattern) -> Result<Trigger, Vec<String>> {
        let fields = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let Some(head) = RequestHead::new(&self.method, &self.target, fields) else {
            return Err(vec![format!(
                "`{}` is no http URL, and no path with one `Host`: no trigger could match it",
                self.target
            )]);
        };
        let body = self.body.as_bytes();
        if match_head(pattern, &head) && match_body(pattern, body) {
            let body = Bytes::copy_from_slice(body);
            return Ok(saga::trigger(pattern, &head, body, None));
        }
        // Each part on its own, everything else being left open.
        let open = TriggerPattern {
            method: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            json: Vec::new(),
            ..pattern.clone()
        };
        let mut why = Vec::new();
        if let Some(method) = pattern.method.as_deref().filter(|method| *method != self.method) {
            why.push(format!("the method is {}, not {method}", self.method));
        }
        if !match_head(&open, &head) {
            why.push(format!("the URL is {}, not {}", head.url(), pattern.url()));
        } else {
            for pair in &pattern.query {
                let only = TriggerPattern {
                    query: vec![pair.clone()],
                    ..open.clone()
                };
                if !match_head(&only, &head) {
                    why.push(format!("the query has no `{}` that is {:?}", pair.0, pair.1));
                }
            }
            for pair in &pattern.headers {
                let only = TriggerPattern {
                    headers: vec![pair.clone()],
                    ..open.clone()
                };
                if !match_head(&only, &head) {
                    why.push(format!("there is no header `{}` that is {:?}", pair.0, pair.1));
                }
            }
        }
        if pattern.body.is_some() && !match_body(pattern, body) {
            why.push("the body is another text".to_owned());
        }
        for pair in &pattern.json {
            let only = TriggerPattern {
                json: vec![pair.clone()],
                ..open.clone()
            };
            if !match_body(&only, body) {
                why.push(format!(
                    "the body, read as JSON, has no `{}` that is {}",
                    pair.0, pair.1
                ));
            }
        }
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_editors_write_it() {
        let text = "### book\n# a comment\n\nPOST http://trips:8080/trips/7 HTTP/1.1\r\nX-A: 1\r\n\r\n{\"a\":\n1}\r\n";
        let request = read_request(text).unwrap();
        assert_eq!(request.method, "POST");
        assert_eq!(request.target, "http://trips:8080/trips/7");
        assert_eq!(request.headers, [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(request.body, "{\"a\":\n1}");
        let short = read_request("GET /x\nHost: a").unwrap();
        assert_eq!((short.target.as_str(), short.body.as_str()), ("/x", ""));
    }

    #[test]
    fn what_is_no_request_is_named_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("\n# only\n", 1),
            ("POST\n", 1),
            ("\nPOST a b c\n", 2),
            ("GET /x\nHost a\n", 2),
            ("GET /x\nHost: a\nB d: 1\n", 3),
            ("GET /x\nA: \u{7}\n", 2),
        ] {
            assert_eq!(read_request(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
