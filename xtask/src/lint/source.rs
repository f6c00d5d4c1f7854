//! Rust text as a flat list of words and punctuation, with comments, strings and characters left out, and the paths
//! that it names. Not a parser: enough to see which modules a file mentions.

/// A word or a punctuation mark (`::` is one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// From 1.
    pub(super) line: usize,
    /// The text itself.
    pub(super) text: String,
}

/// A path as `std::time::Instant`; groups are taken apart, so that `a::{b, c}` gives two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Where its last word stands, from 1.
    pub(super) line: usize,
    /// Its words.
    pub(super) words: Vec<String>,
}

/// Takes comments, strings and character literals off and splits the rest.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest {
            [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => string(rest, 1),
            [b'\'', ..] => character(rest),
            [first, ..] if first.is_ascii_alphabetic() || *first == b'_' => {
                let word = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                match raw_string(rest, word) {
                    Some(length) => length,
                    None => {
                        found.push(Token {
                            line,
                            text: String::from_utf8_lossy(&rest[..word]).into_owned(),
                        });
                        word
                    }
                }
            }
            [b':', b':', ..] => {
                found.push(Token {
                    line,
                    text: "::".to_owned(),
                });
                2
            }
            [first, ..] => {
                if first.is_ascii_punctuation() {
                    found.push(Token {
                        line,
                        text: char::from(*first).to_string(),
                    });
                }
                1
            }
            [] => break,
        };
        line += rest[..length].iter().filter(|byte| **byte == b'\n').count();
        at += length;
    }
    found
}

/// Keywords that a path can follow.
const KEYWORDS: [&str; 16] = [
    "as", "dyn", "else", "extern", "for", "if", "impl", "in", "let", "match", "move", "mut", "ref", "return",
    "use", "where",
];

/// Every path with at least one `::`.
pub(super) fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        // `use ::tokio::spawn`: the path begins behind the keyword.
        let starts = text.bytes().all(is_word) && !KEYWORDS.contains(&text) && followed_by_colons(tokens, at);
        at = if starts {
            path(tokens, at, &[], &mut found)
        } else {
            at + 1
        };
    }
    found
}

/// Reads one path from `at` and returns where it ends.
fn path(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let mut words = before.to_vec();
    let mut line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        if token.text.bytes().all(is_word) || token.text == "*" && !words.is_empty() {
            words.push(token.text.clone());
            line = token.line;
            at += 1;
            if tokens.get(at).is_some_and(|next| next.text == "::") {
                at += 1;
                continue;
            }
        } else if token.text == "{" {
            return group(tokens, at + 1, &words, found);
        }
        break;
    }
    found.push(Named { line, words });
    at
}

/// Reads `a, b::c}`.
fn group(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    while let Some(token) = tokens.get(at) {
        at = match token.text.as_str() {
            "}" => return at + 1,
            "," => at + 1,
            "as" => at + 2,
            _ => path(tokens, at, before, found).max(at + 1),
        };
    }
    at
}

fn followed_by_colons(tokens: &[Token], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|next| next.text == "::")
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// A string whose text starts at `at`.
fn string(rest: &[u8], mut at: usize) -> usize {
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`: a prefix of `word` bytes, then the string.
fn raw_string(rest: &[u8], word: usize) -> Option<usize> {
    let prefix = &rest[..word];
    if !matches!(prefix, b"r" | b"b" | b"c" | b"br" | b"cr") {
        return None;
    }
    if !prefix.contains(&b'r') {
        return (rest.get(word) == Some(&b'"')).then(|| string(rest, word + 1));
    }
    let marks = rest[word..].iter().take_while(|byte| **byte == b'#').count();
    let open = word + marks;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', marks));
    let text = &rest[open + 1..];
    let end = text.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + 1 + end + close.len()))
}

/// `'x'`, `'\n'` or a lifetime (of which only the mark is taken).
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest
            .iter()
            .skip(3)
            .position(|byte| *byte == b'\'')
            .map_or(rest.len(), |end| end + 4);
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]);
    match text.chars().next() {
        Some(first) if rest.get(1 + first.len_utf8()) == Some(&b'\'') => 2 + first.len_utf8(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{paths, tokens};

    fn named(text: &str) -> Vec<String> {
        paths(&tokens(text))
            .into_iter()
            .map(|path| path.words.join("::"))
            .collect()
    }

    #[test]
    fn comments_strings_and_characters_are_left_out() {
        let text = r##"
            // tokio::spawn
            /* tokio /* ::x */ */
            let a = "tokio::x\"y"; let b = r#"tokio::"z""#; let c = b"tokio::x"; let d = '"'; let e = '\'';
            fn f<'a>(x: &'a str) { g::h() }
        "##;
        assert_eq!(named(text), ["g::h"]);
    }

    #[test]
    fn groups_are_taken_apart() {
        let text = "use a::{b::{c, d as e}, f, self, g::*};\nuse h::i;";
        assert_eq!(
            named(text),
            ["a::b::c", "a::b::d", "a::f", "a::self", "a::g::*", "h::i"]
        );
    }

    #[test]
    fn lines_are_counted() {
        let found = paths(&tokens("//! x\n\nuse a::b;\n"));
        assert_eq!(found[0].line, 3);
    }
}
