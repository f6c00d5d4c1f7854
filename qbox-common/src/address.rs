//! An IP address as the programs see it: four words in network byte order, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).

/// An IPv4 or IPv6 address: 16 bytes, in the order they have on the wire.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub [u32; 4]);

const MAPPED: u32 = 0xffff_u32.to_be();
const LINK_LOCAL_MASK: u32 = 0xffc0_0000_u32.to_be();
const LINK_LOCAL: u32 = 0xfe80_0000_u32.to_be();
const V4_LOOPBACK_MASK: u32 = 0xff00_0000_u32.to_be();
const V4_LOOPBACK_NET: u32 = 0x7f00_0000_u32.to_be();
const ONE: u32 = 1_u32.to_be();

impl Address {
    /// 127.0.0.1, network byte order: where the listener of a namespace is.
    pub const V4_LOOPBACK: u32 = 0x7f00_0001_u32.to_be();
    /// ::1, the same for IPv6.
    pub const V6_LOOPBACK: Self = Self([0, 0, 0, ONE]);

    /// From an IPv4 address in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(address: u32) -> Self {
        Self([0, 0, MAPPED, address])
    }

    /// From the 16 bytes on the wire; IPv4 is to be mapped already.
    #[must_use]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The 16 bytes on the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0[0].to_ne_bytes();
        let [e, f, g, h] = self.0[1].to_ne_bytes();
        let [i, j, k, l] = self.0[2].to_ne_bytes();
        let [m, n, o, p] = self.0[3].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 address, network byte order, where [`Address::is_v4`].
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> u32 {
        self.0[3]
    }

    /// 127.0.0.0/8, or ::1.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            self.0[3] & V4_LOOPBACK_MASK == V4_LOOPBACK_NET
        } else {
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == ONE
        }
    }

    /// What stays on the machine or on the link, and is never captured: loopback, the unspecified addresses (connect(2)
    /// takes them for loopback) and IPv6's link-local ones, which mean nothing without their interface.
    #[inline(always)]
    #[must_use]
    pub const fn is_local(self) -> bool {
        if self.is_v4() {
            return self.0[3] == 0 || self.is_loopback();
        }
        let unspecified_or_loopback =
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && (self.0[3] == 0 || self.0[3] == ONE);
        unspecified_or_loopback || self.0[0] & LINK_LOCAL_MASK == LINK_LOCAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    fn address(text: &str) -> Address {
        Address::from_octets(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn octets_are_in_the_wires_order() {
        let octets = core::array::from_fn(|n| u8::try_from(n).unwrap());
        assert_eq!(Address::from_octets(octets).octets(), octets);
        let v4 = Address::from_v4(u32::from_ne_bytes([10, 1, 2, 3]));
        assert_eq!(v4, address("::ffff:10.1.2.3"));
        assert!(v4.is_v4());
        assert_eq!(v4.v4().to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(Address::V4_LOOPBACK.to_ne_bytes(), [127, 0, 0, 1]);
        assert_eq!(Address::V6_LOOPBACK, address("::1"));
    }

    #[test]
    fn what_is_local() {
        for text in [
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "::ffff:0.0.0.0",
            "::ffff:127.0.0.1",
            "::ffff:127.255.1.2",
        ] {
            assert!(address(text).is_local(), "{text}");
        }
        for text in [
            "::2",
            "1::",
            "fec0::1",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::ffff:0.0.0.1",
            "0:1::1",
        ] {
            assert!(!address(text).is_local(), "{text}");
        }
        assert!(address("::ffff:127.0.0.9").is_loopback());
        assert!(address("::1").is_loopback());
        assert!(!address("::").is_loopback());
    }
}
