//! Colours for people: on a terminal, and nowhere else. What a script reads, or whoever has set `NO_COLOR` (<https://no-color.org>), gets plain
//! text. What others have written can't bring its own: `show::plain` takes its control characters.
//!
//! Knows only words. No errors.

use std::env;
use std::io::IsTerminal;
use std::sync::OnceLock;

static ON: OnceLock<bool> = OnceLock::new();

/// Looks once whether there are any: from here on, if standard output is a terminal that wants them.
pub(super) fn look() {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let wanted = set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb");
    ON.get_or_init(|| wanted && std::io::stdout().is_terminal());
}

/// ECMA-48's SGR parameters, for what a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// Done, ready: green.
    Good,
    /// Under way: blue.
    Going,
    /// Undone: cyan.
    Undone,
    /// To be looked at: yellow.
    Doubtful,
    /// A person is needed: bold red.
    Bad,
    /// Nothing yet: faint.
    Quiet,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Going => "34",
            Self::Undone => "36",
            Self::Doubtful => "33",
            Self::Bad => "1;31",
            Self::Quiet => "2",
        }
    }

    /// Of a saga's or a step's state, or of an event's kind; none for other words.
    pub(super) fn of(state: &str) -> Option<Self> {
        Some(match state {
            "committed" | "applied" => Self::Good,
            "running" => Self::Going,
            "compensated" | "undone" => Self::Undone,
            "compensating" | "undoing" | "unknown" => Self::Doubtful,
            "stuck" | "halted" | "not applied" | "refused" | "failed" | "step_failed" => Self::Bad,
            "waiting" | "pending" | "skipped" => Self::Quiet,
            _ => return None,
        })
    }

    /// The text in this colour, where there are colours.
    pub(super) fn paint(self, text: &str) -> String {
        match ON.get().copied().unwrap_or_default() {
            true => self.painted(text),
            false => text.to_owned(),
        }
    }

    fn painted(self, text: &str) -> String {
        format!("\u{1b}[{}m{text}\u{1b}[0m", self.code())
    }
}

/// A state in its colour, where there are colours.
pub(super) fn state(word: &str) -> String {
    match Colour::of(word) {
        Some(colour) => colour.paint(word),
        None => word.to_owned(),
    }
}

/// How many columns a text takes, but for its colours.
pub(super) fn width(text: &str) -> usize {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().map_or(0, |part| part.chars().count());
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        let painted = Colour::Bad.painted("stuck");
        assert_eq!(painted, "\u{1b}[1;31mstuck\u{1b}[0m");
        assert_eq!(width(&format!("{painted}, paused")), "stuck, paused".len());
        assert_eq!(width("旅 mm"), 4);
    }

    #[test]
    fn no_test_is_a_terminal() {
        assert_eq!(state("stuck"), "stuck");
        assert_eq!(state("anything"), "anything");
    }
}
