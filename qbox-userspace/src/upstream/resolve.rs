//! Names to addresses: a hosts file of Qbox's own first, then the system's resolver. Connects nowhere.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How many addresses of one name are tried at most.
const MAX_ADDRESSES: usize = 16;

/// A hosts file (hosts(5)): for clusters' names on a machine that is not in the cluster's DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    names: HashMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads the text of a hosts file. As libc does, a line whose first word is no address is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            if let Some(address) = words.next().and_then(|w| w.parse::<IpAddr>().ok()) {
                for name in words {
                    hosts.insert(name, address);
                }
            }
        }
        hosts
    }

    /// Adds one address of `name` (compared without case), behind those it has.
    pub fn insert(&mut self, name: &str, address: IpAddr) {
        let addresses = self.names.entry(name.to_ascii_lowercase()).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    fn get(&self, name: &str) -> Option<&[IpAddr]> {
        self.names.get(&name.to_ascii_lowercase()).map(Vec::as_slice)
    }
}

/// The addresses of `host`, in the order in which they are to be tried; never empty.
///
/// # Errors
/// The resolver's, or the name has no address.
pub async fn resolve(hosts: &Hosts, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // A name written with its root's dot is the same name.
    let name = host.strip_suffix('.').unwrap_or(host);
    if let Some(addresses) = hosts.get(name) {
        let addresses = addresses.iter().map(|a| SocketAddr::new(*a, port));
        return Ok(addresses.take(MAX_ADDRESSES).collect());
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await?
        .take(MAX_ADDRESSES)
        .collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_come_first_and_in_order() {
        let hosts = Hosts::parse(
            "# demo\n10.0.0.1 Hotel.default.svc hotel # both\n10.0.0.2\thotel\nnonsense x\n::1 six\n10.0.0.1 hotel\n",
        );
        let found = resolve(&hosts, "HOTEL", 80).await.unwrap();
        assert_eq!(
            found,
            ["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()]
        );
        assert_eq!(resolve(&hosts, "hotel.default.svc.", 1).await.unwrap().len(), 1);
        assert_eq!(
            resolve(&hosts, "six", 1).await.unwrap(),
            ["[::1]:1".parse().unwrap()]
        );
        assert_eq!(
            resolve(&hosts, "127.0.0.9", 7).await.unwrap(),
            ["127.0.0.9:7".parse().unwrap()]
        );
        assert!(
            resolve(&Hosts::default(), "no-such-name.invalid", 1)
                .await
                .is_err()
        );
    }
}
