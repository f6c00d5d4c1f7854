//! An HTTP/1.1 message's end: just enough for both ends of a benchmark, which know what the other sends.

use anyhow::{Context, Result, ensure};

/// No message here is longer.
const MOST: usize = 64 * 1024;

/// How long the message at the buffer's beginning is; `None`: it is not all there.
///
/// # Errors
/// It is too long, or its length is none.
pub(super) fn length(buffer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        ensure!(buffer.len() < MOST, "a head without an end");
        return Ok(None);
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
    let fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body: usize = match lengths.next() {
        Some((_, value)) => value.trim().parse().context("a length that is none")?,
        None => 0,
    };
    let whole = body.saturating_add(head + 4);
    ensure!(whole < MOST, "a message of {whole} bytes");
    Ok((buffer.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_says() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP";
        for end in 0..text.len() {
            let found = length(&text[..end]).unwrap();
            assert_eq!(found, (end >= 41).then_some(41), "{end}");
        }
        assert_eq!(length(b"GET / HTTP/1.1\r\n\r\n").unwrap(), Some(18));
        length(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").unwrap_err();
        length(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").unwrap_err();
    }
}
