//! What goes wrong with one delivery of one message: drawn from the seed, the participant, the message and how often it has
//! come, never from what came before.

use super::draw::Draw;
use super::ledger::Ask;
use std::time::Duration;

/// When what was asked takes effect, if the answer doesn't come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Never.
    None,
    /// At once.
    Now,
    /// After that time, when whoever asked has given up.
    Late(Duration),
}

/// How a delivery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Well.
    Plain,
    /// The connection is reset once the request has been read.
    Reset(Effect),
    /// No answer comes.
    Silent(Effect),
    /// 500.
    Fails(Effect),
    /// The answer comes, after that time; what was asked takes effect before it or after it.
    Slow(Duration, Effect),
}

/// What is drawn for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// The participant.
    pub(super) name: &'a str,
    /// Whether anything goes wrong at all.
    pub(super) faults: bool,
    /// Whether it can bear an effect that comes after its sender has given up.
    pub(super) late: bool,
}

/// A delivery's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) way: Way,
    /// The network delivers the same request again, after that time.
    pub(super) again: Option<Duration>,
    /// How long the participant is at it before it answers, if all goes well.
    pub(super) work: Duration,
    /// What is asked takes effect when that is done, not before.
    pub(super) after_work: bool,
}

impl Fate {
    /// Draws one. With faults: 5 % resets, 5 % without an answer, 5 % 500s, 2 % slow, 5 % delivered twice.
    pub(super) fn draw(seed: u64, whose: &Whose<'_>, ask: Ask, trip: u64, delivery: u64) -> Self {
        let what = match ask {
            Ask::Book => "book",
            Ask::Cancel => "cancel",
            Ask::Look => "look",
        };
        let mut draw = Draw::of(seed, &format!("{} {what} {delivery}", whose.name), trip);
        let late = whose.late;
        // 100: nothing goes wrong.
        let kind = if whose.faults { draw.below(100) } else { 100 };
        let half = if draw.percent(50) {
            Effect::Now
        } else {
            Effect::None
        };
        // The patience of the saga files is 700 ms.
        let after = Duration::from_millis(draw.between(600, 2000));
        let slow = Duration::from_millis(draw.between(50, 500));
        let third = match draw.below(3) {
            0 => Effect::None,
            1 if late => Effect::Late(after),
            _ => Effect::Now,
        };
        let way = match kind {
            0..5 => Way::Reset(half),
            5..10 => Way::Silent(third),
            10..15 => Way::Fails(half),
            15..17 if late && half == Effect::None => Way::Slow(slow, Effect::Late(slow)),
            15..17 => Way::Slow(slow, Effect::Now),
            _ => Way::Plain,
        };
        let apart = if late { draw.below(1500) } else { 0 };
        let again = (whose.faults && draw.percent(5)).then(|| Duration::from_millis(apart));
        Self {
            way,
            again,
            work: Duration::from_millis(draw.below(120)),
            after_work: late && draw.percent(50),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(late: bool) -> Vec<Fate> {
        let whose = Whose {
            name: "hotel",
            faults: true,
            late,
        };
        let draw = |trip| Fate::draw(3, &whose, Ask::Book, trip, 0);
        (0..20_000).map(draw).collect()
    }

    #[test]
    fn the_shares_are_those_of_the_issue() {
        let fates = draws(true);
        let share = |found: fn(&Fate) -> bool| fates.iter().filter(|fate| found(fate)).count() / 20;
        // In thousandths.
        assert!((40..60).contains(&share(|fate| matches!(fate.way, Way::Reset(_)))));
        assert!((40..60).contains(&share(|fate| matches!(fate.way, Way::Silent(_)))));
        assert!((40..60).contains(&share(|fate| matches!(fate.way, Way::Fails(_)))));
        assert!((20..30).contains(&share(|fate| matches!(fate.way, Way::Fails(Effect::Now)))));
        assert!((14..27).contains(&share(|fate| matches!(fate.way, Way::Slow(..)))));
        assert!((40..60).contains(&share(|fate| fate.again.is_some())));
        assert!(share(|fate| matches!(fate.way, Way::Silent(Effect::Late(_)))) > 10);
    }

    #[test]
    fn without_faults_all_goes_well() {
        let whose = Whose {
            name: "hotel",
            faults: false,
            late: true,
        };
        let plain = |trip| Fate::draw(3, &whose, Ask::Book, trip, 0);
        assert!(
            (0..1000)
                .map(plain)
                .all(|fate| fate.way == Way::Plain && fate.again.is_none())
        );
    }

    #[test]
    fn who_has_no_fences_is_spared_what_only_fences_can_bear() {
        for fate in draws(false) {
            assert_eq!(fate.again.unwrap_or_default(), Duration::ZERO);
            let effect = match fate.way {
                Way::Plain => Effect::Now,
                Way::Reset(effect) | Way::Silent(effect) | Way::Fails(effect) | Way::Slow(_, effect) => {
                    effect
                }
            };
            assert!(!matches!(effect, Effect::Late(_)) && !fate.after_work, "{fate:?}");
        }
    }
}
