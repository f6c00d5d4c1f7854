//! What the journal is given, and what is made of it again: secrets that a restart needs are sealed, all others left out.

use super::Shared;
use crate::journal::Stamp;
use crate::saga::{self, Event, Hidden, Needs, SagaId};
use std::borrow::Cow;

impl Shared {
    /// A saga's events from number `first` on, as they are to be recorded.
    pub(super) fn sealed<'a>(
        &self,
        saga: SagaId,
        needs: &Needs,
        stamp: Option<&Stamp>,
        first: u64,
        events: &'a [Event],
    ) -> Cow<'a, [Event]> {
        let mut recorded = Cow::Borrowed(events);
        for (at, (number, event)) in (first..).zip(events).enumerate() {
            let Some(apart) = self.settings.secrets.apart(needs, event) else {
                continue;
            };
            let sealed = apart
                .needed
                .and_then(|needed| self.settings.keys.seal(&context(saga, number), &needed));
            let mut event = apart.event;
            if let Event::Began { hidden, .. } | Event::Ended { hidden, .. } = &mut event {
                *hidden = Some(Hidden {
                    sealed,
                    stamp: stamp.filter(|_| number == 0).map(write_stamp),
                    lost: None,
                });
            }
            if let Some(place) = recorded.to_mut().get_mut(at) {
                *place = event;
            }
        }
        recorded
    }

    /// Opens what was sealed of a saga's whole history. What can't be opened stays hidden, and says why.
    pub(super) fn open(&self, saga: SagaId, events: &mut [Event]) {
        for (number, event) in (0..).zip(events) {
            let (Event::Began { hidden, .. } | Event::Ended { hidden, .. }) = event else {
                continue;
            };
            let Some(sealed) = hidden.as_mut().and_then(|hidden| hidden.sealed.take()) else {
                continue;
            };
            let opened = self.settings.keys.open(&context(saga, number), &sealed);
            let whole = opened.and_then(|needed| saga::whole(event, &needed));
            if let (Err(why), Event::Began { hidden, .. } | Event::Ended { hidden, .. }) = (whole, event)
                && let Some(hidden) = hidden
            {
                hidden.lost = Some(why);
            }
        }
    }
}

/// What a sealed text belongs to.
fn context(saga: SagaId, number: u64) -> [u8; 24] {
    let mut context = [0; 24];
    let parts = saga.0.to_be_bytes().into_iter().chain(number.to_be_bytes());
    for (to, from) in context.iter_mut().zip(parts) {
        *to = from;
    }
    context
}

fn write_stamp(stamp: &Stamp) -> String {
    let bytes = stamp.key.iter().chain(&stamp.payload);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// A trigger's stamp as it was recorded beside what is hidden of it.
pub(super) fn read_stamp(hidden: &Hidden) -> Option<Stamp> {
    let text = hidden.stamp.as_deref()?;
    let mut stamp = Stamp {
        key: [0; 32],
        payload: [0; 32],
    };
    let mut digits = text.chars().map_while(|digit| digit.to_digit(16));
    for place in stamp.key.iter_mut().chain(&mut stamp.payload) {
        let (high, low) = (digits.next()?, digits.next()?);
        *place = u8::try_from(high << 4 | low).ok()?;
    }
    Some(stamp)
}
