//! What a token is made of (RFC 9110, 5.6.2). Of each message every name is looked at, in both directions.

/// Which bytes may stand in one.
const TOKEN: [bool; 256] = {
    let mut fits = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        fits[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others = b"!#$%&'*+-.^_`|~".as_slice();
    while let [byte, rest @ ..] = others {
        fits[*byte as usize] = true;
        others = rest;
    }
    fits
};

/// A `tchar`.
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}
