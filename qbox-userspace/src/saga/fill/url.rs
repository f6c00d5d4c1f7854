//! A URL's path and query: each value is one segment, or one query value, whatever characters it has (RFC 3986, 3.3, 3.4).
//!
//! Escaping is enough for all but three values. `.` and `..` are resolved away, escaped or not, by clients and servers
//! alike; servers that turn `%2F` into `/` before they resolve make `a%2F..%2Fb` climb as well; and an empty segment asks
//! for the collection, or is merged away. So those are refused rather than sent.

use crate::saga::expr::{Expr, Part, Template};
use crate::saga::plan::{Scheme, UrlTemplate};
use crate::saga::values::{Lookup, Missing};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but RFC 3986's unreserved characters (section 2.3) is escaped: no other character is safe in every place.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The whole URL.
///
/// # Errors
/// A value that is missing, or that can't be one segment.
pub(super) fn url(template: &UrlTemplate, lookup: &Lookup<'_>) -> Result<String, Missing> {
    let scheme = match template.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let mut url = [scheme, "://", &template.authority, &path(&template.path, lookup)?].concat();
    if let Some(query) = &template.query {
        url.push('?');
        url.push_str(&query.try_fill(|expr| escaped(expr, lookup))?);
    }
    Ok(url)
}

fn escaped(expr: &Expr, lookup: &Lookup<'_>) -> Result<String, Missing> {
    Ok(escape(&lookup.text(expr)?))
}

/// All but the unreserved characters escaped.
pub(in crate::saga) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The path, segment by segment. What the file itself writes is its own affair: only filled segments are looked at.
fn path(template: &Template, lookup: &Lookup<'_>) -> Result<String, Missing> {
    let mut path = String::new();
    let mut segment = Segment::default();
    for part in &template.parts {
        match part {
            Part::Text(text) => {
                let mut pieces = text.split('/');
                segment.text.push_str(pieces.next().unwrap_or_default());
                for piece in pieces {
                    path.push_str(&std::mem::take(&mut segment).checked()?);
                    path.push('/');
                    segment.text.push_str(piece);
                }
            }
            Part::Value(expr) => {
                segment.text.push_str(&escaped(expr, lookup)?);
                segment.filled = Some(expr);
            }
        }
    }
    path.push_str(&segment.checked()?);
    Ok(path)
}

/// One segment, escaped, and the last expression in it.
#[derive(Default)]
struct Segment<'t> {
    text: String,
    filled: Option<&'t Expr>,
}

impl Segment<'_> {
    fn checked(self) -> Result<String, Missing> {
        let Some(expr) = self.filled else {
            return Ok(self.text);
        };
        // `${…:}`: the file says in so many words that it may be empty.
        if self.text.is_empty() && expr.default.as_deref() != Some("") {
            return Err(Missing::EmptySegment(expr.text.clone()));
        }
        if climbs(&self.text) {
            return Err(Missing::Climbs(expr.text.clone(), self.text));
        }
        Ok(self.text)
    }
}

/// Whether a server could read a dot segment in this: `/` and `\` as it may see them once decoded, and without the
/// parameters that some take off a segment before they resolve it (`..;a=1`).
fn climbs(segment: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(segment).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|piece| {
        let name = piece.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}
