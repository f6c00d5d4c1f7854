//! The bearer token of RFC 6750: read from a file, asked of TCP clients.
//!
//! What is kept is a digest, so that no log and no dump of this process's structures has the token itself.

use super::problem::problem;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::fs;
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longer files are no token.
const LONGEST: u64 = 4096;

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It can't be read.
    #[error("can't read the token file {}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in it, or something that no `Authorization` field can carry (RFC 6750, 2.1), or too much.
    #[error(
        "the token file {} holds no token: one word of letters, digits and -._~+/= on its first line, such as \
         `openssl rand -base64 32` prints",
        path.display()
    )]
    NoToken {
        /// Where.
        path: PathBuf,
    },
}

/// A token's digest.
#[derive(Debug, Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads a file of one token. That others than its owner may read it is logged.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        read_token(path).map(|token| Self(digest(token.as_bytes())))
    }

    /// What is answered to a request that doesn't have it; `None`: it has.
    pub(super) fn challenge(&self, headers: &HeaderMap) -> Option<Response> {
        let given = headers.get(header::AUTHORIZATION).and_then(bearer);
        if given.is_some_and(|given| self.is(given)) {
            return None;
        }
        // RFC 6750, 3: an error is named only to those who have tried.
        let (challenge, detail) = match given {
            Some(_) => (
                "Bearer realm=\"qbox\", error=\"invalid_token\"",
                "that is not this API's token",
            ),
            None => (
                "Bearer realm=\"qbox\"",
                "send `Authorization: Bearer TOKEN`, with the token of this Qbox's admin.token_file",
            ),
        };
        let mut response = problem(StatusCode::UNAUTHORIZED, detail);
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Some(response)
    }

    /// Compares all of the digests, whatever they are: the time tells nothing, and of a digest it could tell nothing that helps.
    fn is(&self, given: &[u8]) -> bool {
        let given = digest(given);
        let different = self.0.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        black_box(different) == 0
    }
}

/// The credentials of the scheme `Bearer`, in any case (RFC 9110, 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, credentials) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| credentials.trim_ascii())
}

/// The token of a file, as a client sends it.
///
/// # Errors
/// [`TokenError`].
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let unreadable = |source| TokenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let none = || TokenError::NoToken {
        path: path.to_owned(),
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), mode = %format_args!("{mode:03o}"), "others may read the token: chmod 600");
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(none());
    }
    let text = String::from_utf8(bytes).map_err(|_| none())?;
    let token = text.trim();
    let fit = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    match !token.is_empty() && token.chars().all(fit) {
        true => Ok(token.to_owned()),
        false => Err(none()),
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    /// The status, and the challenge, of a request with that field.
    fn asked(token: &Token, value: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        let response = token.challenge(&headers)?;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).unwrap();
        Some(challenge.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_the_token_of_the_file_opens() {
        let token = Token::read(file("c2VjcmV0+/-._~==\n").path()).unwrap();
        for right in ["Bearer c2VjcmV0+/-._~==", "bearer  c2VjcmV0+/-._~=="] {
            assert_eq!(asked(&token, Some(right)), None, "{right}");
        }
        for none in [None, Some("Basic c2VjcmV0"), Some("Bearer")] {
            let challenge = asked(&token, none);
            assert_eq!(challenge.as_deref(), Some("Bearer realm=\"qbox\""), "{none:?}");
        }
        for wrong in ["Bearer ", "Bearer c2VjcmV0", "Bearer c2VjcmV0+/-._~==x"] {
            let challenge = asked(&token, Some(wrong)).unwrap();
            assert!(challenge.ends_with("error=\"invalid_token\""), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_said() {
        for text in ["", "\n", "two words", "two\nlines", "caf\u{e9}"] {
            let file = file(text);
            let error = Token::read(file.path()).unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{text:?}: {error}");
        }
        let huge = file(&"x".repeat(5000));
        assert!(matches!(
            Token::read(huge.path()),
            Err(TokenError::NoToken { .. })
        ));
        let missing = Token::read(Path::new("/nowhere/token")).unwrap_err();
        assert!(
            format!("{:#}", anyhow::Error::from(missing)).contains("/nowhere/token: No such file"),
            "the cause is said"
        );
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::read(file("c2VjcmV0").path()).unwrap();
        assert!(!format!("{token:?}").contains("c2VjcmV0"));
    }
}
