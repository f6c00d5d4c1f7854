//! Explicit mode: nothing was intercepted, so a request itself says where it goes, by an absolute-form target or its
//! Host (RFC 9112, 3.2 and 3.3). Errors are [`Malformed`].

use super::framing::Malformed;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str;

/// A host and a port as a request names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// A name or an address; an IPv6 address without its brackets.
    pub(super) host: String,
    /// 80 where none is named.
    pub(super) port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The place.
    pub(super) authority: Authority,
    /// Bytes of `http://authority` at the start of an absolute-form target, to be taken off on the way to an origin
    /// server (RFC 9112, 3.2.1).
    pub(super) prefix: usize,
    /// What stands for the path where the target names none: `/`, or `*` for OPTIONS (RFC 9112, 3.2.4).
    pub(super) root: Option<u8>,
}

impl Route {
    /// Reads it off a request. CONNECT has none that could be used: it gets a place that is never asked for.
    ///
    /// # Errors
    /// No Host, or one that is no `host[:port]`, or that contradicts the target.
    pub(super) fn of(method: &str, target: &str, host: Option<&[u8]>) -> Result<Self, Malformed> {
        let host = host.map(authority).transpose()?;
        if method == "CONNECT" || target.starts_with('/') || target == "*" {
            let authority = match (host, method) {
                (Some(host), _) => host,
                (None, "CONNECT") => Authority {
                    host: String::new(),
                    port: 0,
                },
                (None, _) => return Err(Malformed::NoHost),
            };
            return Ok(Self {
                authority,
                prefix: 0,
                root: None,
            });
        }
        let rest = match target.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http://") => target.get(7..).unwrap_or_default(),
            _ => return Err(Malformed::Authority),
        };
        let len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (place, path) = rest.split_at(len);
        let named = authority(place.as_bytes())?;
        if host.is_some_and(|host| host != named) {
            return Err(Malformed::Authority);
        }
        let root = match path.is_empty() {
            true if method == "OPTIONS" => Some(b'*'),
            _ if path.starts_with('/') => None,
            _ => Some(b'/'),
        };
        Ok(Self {
            authority: named,
            prefix: 7 + len,
            root,
        })
    }
}

fn authority(bytes: &[u8]) -> Result<Authority, Malformed> {
    let text = str::from_utf8(bytes).map_err(|_| Malformed::Authority)?;
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, "80"),
        Some((host, rest)) => (host, rest.strip_prefix(':').ok_or(Malformed::Authority)?),
        None => text.split_once(':').unwrap_or((text, "80")),
    };
    let named = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:%".contains(&byte))
        && (text.starts_with('[') || !host.contains(':'));
    if !named || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Authority);
    }
    // An empty port is the default one (RFC 3986, 3.2.3).
    let port = if port.is_empty() {
        80
    } else {
        port.parse().map_err(|_| Malformed::Authority)?
    };
    Ok(Authority {
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// Connecting to `target` would lead to the listener on `listens`. Another address with its port is another's listener, this
/// machine's own ones too; a listener on no particular address has them all.
///
/// Whether an address is this machine's own the routing table says: a datagram socket that is connected to it (nothing
/// is sent) then has that very address.
pub(super) fn leads_to(listens: SocketAddr, target: SocketAddr) -> bool {
    if target.port() != listens.port() {
        return false;
    }
    // connect(2) takes the unspecified address for the loopback.
    let ip = match target.ip().to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match listens.ip().to_canonical() {
        IpAddr::V4(own) if own.is_unspecified() => ip.is_ipv4() && (ip.is_loopback() || is_own(ip)),
        // Both families come to it (ipv6(7), IPV6_V6ONLY).
        IpAddr::V6(own) if own.is_unspecified() => ip.is_loopback() || is_own(ip),
        own => ip == own,
    }
}

fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(
        method: &str,
        target: &str,
        host: Option<&str>,
    ) -> Result<(String, usize, Option<u8>), Malformed> {
        let route = Route::of(method, target, host.map(str::as_bytes))?;
        Ok((route.authority.to_string(), route.prefix, route.root))
    }

    #[test]
    fn routes() {
        let ok = |place: &str, prefix, root| Ok((place.to_owned(), prefix, root));
        assert_eq!(
            route("GET", "/x", Some("Trips.default:8080")),
            ok("trips.default:8080", 0, None)
        );
        assert_eq!(route("GET", "/x", Some("trips")), ok("trips:80", 0, None));
        assert_eq!(route("GET", "/x", Some("[::1]:9")), ok("[::1]:9", 0, None));
        assert_eq!(route("GET", "http://a:1/x", Some("a:1")), ok("a:1", 10, None));
        assert_eq!(route("GET", "http://a?x", None), ok("a:80", 8, Some(b'/')));
        assert_eq!(
            route("OPTIONS", "http://a", Some("a:80")),
            ok("a:80", 8, Some(b'*'))
        );
        assert_eq!(route("OPTIONS", "*", Some("a")), ok("a:80", 0, None));
    }

    #[test]
    fn what_leads_back_to_a_listener() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let own = ["127.0.0.1:3001", "[::ffff:127.0.0.1]:3001", "0.0.0.0:3001"];
        let v4 = ["127.0.0.9:3001", "[::ffff:127.0.0.9]:3001"];
        let v6 = ["[::1]:3001", "[::]:3001"];
        let never = ["127.0.0.1:3002", "192.0.2.1:3001", "[2001:db8::1]:3001"];
        for (listens, leads, others) in [
            ("127.0.0.1:3001", [&own[..], &[]], [&v4[..], &v6]),
            ("[::1]:3001", [&v6[..], &[]], [&own[..], &v4]),
            ("0.0.0.0:3001", [&own[..], &v4], [&v6[..], &[]]),
            ("[::ffff:127.0.0.1]:3001", [&own[..], &[]], [&v4[..], &v6]),
        ] {
            for target in leads.concat() {
                assert!(leads_to(address(listens), address(target)), "{target}, {listens}");
            }
            for target in [others.concat(), never.to_vec()].concat() {
                assert!(
                    !leads_to(address(listens), address(target)),
                    "{target}, {listens}"
                );
            }
        }
        for target in [&own[..], &v4, &v6].concat() {
            assert!(leads_to(address("[::]:3001"), address(target)), "{target}");
        }
    }

    #[test]
    fn refused() {
        for (target, host) in [
            ("/x", None),
            ("/x", Some("")),
            ("/x", Some("a:b")),
            ("/x", Some("a:99999")),
            ("/x", Some("user@a")),
            ("/x", Some("a/b")),
            ("/x", Some("a b")),
            ("/x", Some("::1")),
            ("/x", Some("[::1]x")),
            ("http://a/", Some("b")),
            ("https://a/", Some("a")),
            ("http://u@a/", None),
            ("a:80", Some("a")),
        ] {
            assert!(route("GET", target, host).is_err(), "{target} {host:?}");
        }
    }
}
