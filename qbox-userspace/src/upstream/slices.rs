//! Values of a head, as parts of one copy of it: two allocations for all of them.

use bytes::Bytes;

/// The copy.
#[derive(Debug)]
pub(crate) struct Slices<'a> {
    of: &'a [u8],
    copy: Bytes,
}

impl<'a> Slices<'a> {
    /// Of that text, no more of which than this is kept alive by its values.
    pub(crate) fn of(of: &'a [u8]) -> Self {
        Self {
            of,
            copy: Bytes::copy_from_slice(of),
        }
    }

    /// A part of the text, from the copy; of what is no part of it a copy of its own.
    pub(crate) fn get(&self, part: &[u8]) -> Bytes {
        let from = part.as_ptr().addr().wrapping_sub(self.of.as_ptr().addr());
        let range = from..from.wrapping_add(part.len());
        match self.of.get(range.clone()) {
            Some(found) if std::ptr::eq(found, part) => self.copy.slice(range),
            _ => Bytes::copy_from_slice(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_others_copied() {
        let text = b"a: bc\r\n".to_vec();
        let slices = Slices::of(&text);
        let found = slices.get(&text[3..5]);
        assert_eq!(&found[..], b"bc");
        assert!(std::ptr::eq(&found[..], &slices.copy[3..5]));
        assert_eq!(&slices.get(&text[7..])[..], b"");
        assert_eq!(&slices.get(b"elsewhere")[..], b"elsewhere");
        assert_eq!(&slices.get(b"")[..], b"");
    }
}
