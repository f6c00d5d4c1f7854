//! The original destination of an accepted connection.
//!
//! The client's side left it in FLOWS under (namespace, address, port), with its initial sequence number, before the
//! connection could be accepted. The listener keeps each SYN; the two numbers are compared, so that a connection from a
//! port that was used again before the first connection from it was accepted never gets the other's destination.

use super::fill::entries;
use super::sys::{self, Takeable};
use crate::causes::chain;
use aya::maps::{HashMap, Map, MapData, MapError};
use qbox_common::{Address, Flow, MAX_FLOWS, Origin};
use rustix::fd::AsFd;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// IPv6 and TCP heads at their longest on a loopback, where no extension header is added: 40 + 60 bytes, and IPv4's 60.
const LONGEST_HEAD: usize = 128;
/// linux/bpf.h's BPF_NOEXIST.
const NO_EXIST: u64 = 1;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Where it was going; a mapped IPv4 address is unmapped.
    Destination(SocketAddr),
    /// Nothing: it was made to the listener's own address.
    Direct,
    /// Of another connection from that port; this one's is lost, and its client is gone.
    Stale,
}

/// The map FLOWS.
pub(super) struct Origins {
    flows: Mutex<HashMap<MapData, Flow, Origin>>,
    takeable: Takeable<Flow, Origin>,
}

impl TryFrom<Map> for Origins {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let Map::LruHashMap(data) = &map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let takeable = Takeable::of(data)?;
        let flows = Mutex::new(HashMap::try_from(map)?);
        Ok(Self { flows, takeable })
    }
}

impl Origins {
    /// Takes the destination of a connection that was accepted in the namespace with this cookie out of the map.
    ///
    /// # Errors
    /// The map can't be read.
    pub(super) fn take(&self, cookie: u64, peer: SocketAddr, socket: impl AsFd) -> io::Result<Found> {
        let flow = flow(cookie, peer);
        // One command, so that an entry which the kernel writes meanwhile, for the next from that port, isn't deleted.
        let Some(origin) = self.takeable.take(&flow)? else {
            return Ok(Found::Direct);
        };
        let mut head = [0; LONGEST_HEAD];
        let sequence = match sys::saved_syn(socket, &mut head) {
            Ok(length) => head.get(..length).and_then(initial_sequence),
            Err(_) => None,
        };
        // Where no SYN was kept (SYN cookies) the port alone must do.
        if sequence.is_some_and(|sequence| sequence != origin.sequence) {
            // Back it goes, for the one that is behind this in the listener's queue; unless there is a newer one.
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = flows.insert(flow, origin, NO_EXIST) {
                tracing::trace!(error = chain(&error), "a newer connection came from that port");
            }
            return Ok(Found::Stale);
        }
        Ok(Found::Destination(destination(origin)))
    }

    /// How many connections it holds. Each step is one command of the kernel's, so it is not for every scrape.
    pub(super) fn count(&self) -> u64 {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        entries(flows.keys(), MAX_FLOWS)
    }

    /// Forgets the connections of a namespace that nobody will accept any more.
    pub(super) fn forget(&self, cookie: u64) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: a key that goes while it is the iterator's place sends the iterator back to the start.
        let bound = usize::try_from(MAX_FLOWS).unwrap_or(usize::MAX);
        let keys: Vec<Flow> = flows
            .keys()
            .take(bound)
            .flatten()
            .filter(|key| key.namespace == cookie)
            .collect();
        for key in keys {
            // What is gone already is as well.
            let _ = flows.remove(&key);
        }
    }
}

fn flow(cookie: u64, peer: SocketAddr) -> Flow {
    let octets = match peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    Flow {
        namespace: cookie,
        address: Address::from_octets(octets),
        port: u32::from(peer.port()),
        reserved: 0,
    }
}

fn destination(origin: Origin) -> SocketAddr {
    let address = Ipv6Addr::from(origin.address.octets()).to_canonical();
    // The low 16 bits, in network byte order.
    let [high, low, ..] = origin.port.to_ne_bytes();
    SocketAddr::new(address, u16::from_be_bytes([high, low]))
}

/// The sequence number in a saved SYN: an IPv4 (RFC 791, 3.1) or IPv6 (RFC 8200, 3) head, then TCP's (RFC 9293, 3.1).
fn initial_sequence(head: &[u8]) -> Option<u32> {
    let first = *head.first()?;
    let start = match first >> 4 {
        4 => usize::from(first & 0xf) * 4,
        6 => 40,
        _ => return None,
    };
    let bytes = head.get(start + 4..start + 8)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_behind_the_ip_head() {
        let mut v4 = vec![0x45; 1];
        v4.resize(24, 0);
        v4.extend([0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(initial_sequence(&v4), Some(0xdead_beef));
        let mut v6 = vec![0x60; 1];
        v6.resize(44, 0);
        v6.extend([0, 0, 0, 7]);
        assert_eq!(initial_sequence(&v6), Some(7));
        for broken in [&[][..], &[0x45], &[0x4f; 20], &[0x00; 60], &v4[..27]] {
            assert_eq!(initial_sequence(broken), None);
        }
    }

    #[test]
    fn addresses_and_ports_keep_their_order() {
        let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let flow = flow(3, peer);
        assert_eq!(flow.port, 40_000);
        assert!(flow.address.is_v4());
        let origin = Origin {
            address: Address::from_octets("::ffff:10.0.0.7".parse::<Ipv6Addr>().unwrap().octets()),
            port: u32::from(8080_u16.to_be()),
            sequence: 0,
        };
        assert_eq!(destination(origin), "10.0.0.7:8080".parse().unwrap());
        let origin = Origin {
            address: Address::V6_LOOPBACK,
            ..origin
        };
        assert_eq!(destination(origin), "[::1]:8080".parse().unwrap());
    }
}
