//! What each trip is: which saga it triggers, who refuses it, and how its caller behaves. The callers, the participants and
//! the judge all draw it from the seed and the trip's number, so that they need not tell each other.

use super::draw::Draw;

/// A participant's name, and its step's: the same word.
pub(super) type Step = &'static str;

/// What the participants of the trial are called; `trips` is the one that triggers are addressed to.
pub(super) const PARTICIPANTS: [Step; 6] = ["trips", "hotel", "flight", "car", "bank", "mail"];

/// The one that doesn't remember which bookings were cancelled before they came.
pub(super) const WITHOUT_FENCE: Step = "car";

/// How many different `lock`s the sagas have that take one.
const GUESTS: u64 = 60;

/// One of the trial's sagas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Three steps at once; undone after a crash.
    Parallel,
    /// One after the other, goes on after a crash; its key is the file's `dedupe`.
    Chain,
    /// A pivot behind two steps, and a step that must then be applied.
    Pivot,
    /// One attempt each, then a probe; goes on after a crash.
    Probed,
    /// Waits for the other sagas of its guest.
    Locked,
    /// Its pivot is the trigger itself.
    Forward,
    /// Its hotel may refuse to cancel for ever; its caller is answered early.
    Fragile,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Parallel,
        Self::Chain,
        Self::Pivot,
        Self::Probed,
        Self::Locked,
        Self::Forward,
        Self::Fragile,
    ];

    /// The saga's name, and the first segment of its trigger's path.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Chain => "chain",
            Self::Pivot => "pivot",
            Self::Probed => "probed",
            Self::Locked => "locked",
            Self::Forward => "forward",
            Self::Fragile => "fragile",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The saga file.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Parallel => include_str!("sagas/parallel.toml"),
            Self::Chain => include_str!("sagas/chain.toml"),
            Self::Pivot => include_str!("sagas/pivot.toml"),
            Self::Probed => include_str!("sagas/probed.toml"),
            Self::Locked => include_str!("sagas/locked.toml"),
            Self::Forward => include_str!("sagas/forward.toml"),
            Self::Fragile => include_str!("sagas/fragile.toml"),
        }
    }

    /// Its steps, in the file's order.
    pub(super) fn steps(self) -> &'static [Step] {
        match self {
            Self::Parallel | Self::Chain => &["hotel", "flight", "car"],
            Self::Pivot => &["hotel", "flight", "bank", "mail"],
            Self::Probed => &["hotel", "flight"],
            Self::Locked | Self::Fragile => &["hotel", "car"],
            Self::Forward => &["hotel", "trips"],
        }
    }
}

/// How a caller behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Asks until it has an answer.
    Patient,
    /// Asks twice at the same moment.
    Twice,
    /// Asks again some time after it has been answered.
    Again,
    /// Goes away in the middle, and comes back later.
    Returns,
    /// Goes away in the middle, for good.
    Leaves,
}

/// One trip.
#[derive(Debug, Clone)]
pub(super) struct Trip {
    /// From 0.
    pub(super) number: u64,
    /// The saga that it triggers.
    pub(super) kind: Kind,
    /// Who refuses to book it, whatever happens.
    pub(super) refused: Option<Step>,
    /// The hotel books it, but never cancels it.
    pub(super) sticks: bool,
    /// How its caller behaves.
    pub(super) caller: Caller,
    /// Its guest, which is its lock.
    pub(super) guest: u64,
}

impl Trip {
    /// That of a number.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        let mut draw = Draw::of(seed, "trip", number);
        let kind = match draw.below(100) {
            0..20 => Kind::Parallel,
            20..38 => Kind::Chain,
            38..56 => Kind::Pivot,
            56..70 => Kind::Probed,
            70..83 => Kind::Locked,
            83..93 => Kind::Forward,
            _ => Kind::Fragile,
        };
        // What must be applied in the end is never refused.
        let may_refuse = kind.steps().len() - usize::from(kind == Kind::Pivot);
        let refuses = draw.percent(20).then(|| draw.below(may_refuse as u64));
        let refused = refuses.and_then(|step| kind.steps().get(usize::try_from(step).ok()?).copied());
        let caller = match draw.below(100) {
            0..4 => Caller::Twice,
            4..10 => Caller::Again,
            10..14 => Caller::Returns,
            14..17 => Caller::Leaves,
            _ => Caller::Patient,
        };
        Self {
            number,
            kind,
            refused,
            sticks: kind == Kind::Fragile && draw.percent(40),
            caller,
            guest: draw.below(GUESTS),
        }
    }

    /// The trigger's body.
    pub(super) fn wish(&self) -> String {
        format!(r#"{{"guest":"guest-{}","nights":3}}"#, self.guest)
    }

    /// The caller's `Idempotency-Key`; `None` where the saga file names one by `dedupe`.
    pub(super) fn key(&self) -> Option<String> {
        (self.kind != Kind::Chain).then(|| format!("\"trip-{}\"", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_caller_comes_up_and_no_retriable_step_refuses() {
        let trips: Vec<_> = (0..2000).map(|number| Trip::of(1, number)).collect();
        for kind in Kind::ALL {
            assert!(trips.iter().any(|trip| trip.kind == kind), "{kind:?}");
            assert!(
                kind.file().contains(&format!("name = \"{}\"", kind.name())),
                "{kind:?}"
            );
        }
        for caller in [
            Caller::Patient,
            Caller::Twice,
            Caller::Again,
            Caller::Returns,
            Caller::Leaves,
        ] {
            assert!(trips.iter().any(|trip| trip.caller == caller), "{caller:?}");
        }
        assert!(trips.iter().all(|trip| trip.refused != Some("mail")));
        assert!(trips.iter().any(|trip| trip.refused == Some("bank")));
    }

    #[test]
    fn the_steps_are_those_of_the_files() {
        for kind in Kind::ALL {
            let names = kind
                .file()
                .lines()
                .filter_map(|line| line.strip_prefix("name = \""));
            // The first is the saga's own.
            let names: Vec<_> = names.skip(1).map(|rest| rest.trim_end_matches('"')).collect();
            assert_eq!(names, kind.steps(), "{kind:?}");
        }
    }
}
