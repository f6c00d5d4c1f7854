//! The Huffman code of header strings (RFC 7541, 5.2 and appendix B). Pure.
//!
//! The code is canonical: codes of one length follow one another in the order of their symbols, so the lengths say all.

/// Bits of each symbol's code; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The longest code.
const LONGEST: usize = 30;

/// The symbols in the order of their codes; where those of each length begin, in both orders.
struct Code {
    symbols: [u16; 257],
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    offset: [u32; LONGEST + 1],
}

const CODE: Code = {
    let mut code = Code {
        symbols: [0; 257],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
    };
    let (mut length, mut at, mut next) = (1, 0, 0_u32);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.offset[length] = at as u32;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[at] = symbol as u16;
                code.count[length] += 1;
                at += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
};

/// Decodes a string to the end of `out`. `false`: it is none (RFC 7541, 5.2: EOS inside, or padding that is not the
/// start of EOS, or a whole byte of it).
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut code, mut length) = (0_u32, 0);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let (Some(first), Some(count), Some(offset)) = (
                CODE.first.get(length),
                CODE.count.get(length),
                CODE.offset.get(length),
            ) else {
                return false;
            };
            let Some(index) = code.checked_sub(*first).filter(|index| index < count) else {
                continue;
            };
            let symbol = CODE.symbols.get((offset + index) as usize);
            let Some(symbol) = symbol.and_then(|symbol| u8::try_from(*symbol).ok()) else {
                return false; // EOS
            };
            out.push(symbol);
            (code, length) = (0, 0);
        }
    }
    length < 8 && code == (1 << length) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        decode(bytes, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    /// The examples of RFC 7541, C.4 and C.6.
    #[test]
    fn examples() {
        for (bytes, text) in [
            (
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\x64\x02", "302"),
            (
                b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3",
                "https://www.example.com",
            ),
            (b"", ""),
        ] {
            assert_eq!(decoded(bytes).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_string() {
        assert_eq!(decoded(b"\xff"), None, "a byte of padding");
        assert_eq!(decoded(b"\x00"), None, "padding of zeros");
        assert_eq!(decoded(b"\xff\xff\xff\xff"), None, "EOS");
    }
}
