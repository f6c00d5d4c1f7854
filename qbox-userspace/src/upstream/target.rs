//! An absolute URL, taken apart into what a connection and a request line need. Resolves nothing, decodes nothing.

use thiserror::Error;

/// Why a URL can't be called.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TargetError {
    /// Not `http://` and not `https://`.
    #[error("the URL has neither http:// nor https:// in front")]
    Scheme,
    /// No host, a user name, or a port that is no number.
    #[error("the URL's host or port is malformed")]
    Authority,
    /// A space, a control character or a fragment, which have no place on a request line (RFC 9112, 3.2).
    #[error("the URL's path or query holds a character that may not be sent")]
    Path,
}

/// Where a request goes, borrowed from its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Under TLS.
    pub(super) secure: bool,
    /// For the `Host` field: as the URL has it.
    pub(super) authority: &'a str,
    /// Without the brackets of an IPv6 literal.
    pub(super) host: &'a str,
    /// 80 where the URL names none, or 443 with `https`.
    pub(super) port: u16,
    /// Path and query as on the request line; may lack the leading `/` (see [`Target::slash`]).
    rest: &'a str,
}

impl<'a> Target<'a> {
    /// Takes `url` apart.
    pub(super) fn parse(url: &'a str) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::Scheme);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if rest.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
            return Err(TargetError::Path);
        }
        let (host, port) = split_port(authority).ok_or(TargetError::Authority)?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Self {
            secure,
            authority,
            host,
            port,
            rest,
        })
    }

    /// `/` where the URL's path is empty, so that `slash` + `rest` is the origin-form target (RFC 9112, 3.2.1).
    pub(super) fn slash(&self) -> &'static str {
        if self.rest.starts_with('/') { "" } else { "/" }
    }

    /// What stands behind the authority.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }
}

/// The port as it is named, if it is.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
        let (host, tail) = inner.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        match tail.strip_prefix(':') {
            Some(port) => (host, port),
            None if tail.is_empty() => (host, ""),
            None => return None,
        }
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b) || b >= 0x80;
        if host.is_empty() || !host.bytes().all(fits) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_apart() {
        let t = Target::parse("http://trips.default.svc:8080/trips/7?dry=0").unwrap();
        assert_eq!(
            (t.authority, t.host, t.port),
            ("trips.default.svc:8080", "trips.default.svc", 8080)
        );
        assert_eq!((t.slash(), t.rest()), ("", "/trips/7?dry=0"));
        let t = Target::parse("HTTP://[::1]?x").unwrap();
        assert_eq!((t.host, t.port, t.slash(), t.rest()), ("::1", 80, "/", "?x"));
        assert_eq!(Target::parse("http://a").unwrap().slash(), "/");
        let ports = ["http://a/", "https://a/", "HTTPS://a:8443/"].map(|url| {
            let target = Target::parse(url).unwrap();
            (target.secure, target.port)
        });
        assert_eq!(ports, [(false, 80), (true, 443), (true, 8443)]);
    }

    #[test]
    fn refuses_what_could_smuggle() {
        for (url, error) in [
            ("ftp://a/", TargetError::Scheme),
            ("/trips", TargetError::Scheme),
            ("http:///x", TargetError::Authority),
            ("http://a@b/", TargetError::Authority),
            ("http://a:b/", TargetError::Authority),
            ("http://a:99999/", TargetError::Authority),
            ("http://[::1/", TargetError::Authority),
            ("http://a b/", TargetError::Authority),
            ("http://a/\r\nX: y", TargetError::Path),
            ("http://a/ HTTP/1.1", TargetError::Path),
            ("http://a/#f", TargetError::Path),
        ] {
            assert_eq!(Target::parse(url), Err(error), "{url}");
        }
    }
}
