//! An error in one line, with what is behind it. A leaf: it knows no room.

use std::error::Error;

/// The error and its causes, from the outside in. Messages that repeat their cause, as some libraries' do, say it once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
