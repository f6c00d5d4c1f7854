//! The account at the end: counts for each ending, what the kills and faults were, and the violations.

use super::judge::Evidence;
use super::kills::Kills;
use super::listing::End;
use super::stage::Stage;
use super::trip::Kind;
use super::{Options, participant::Tally};
use anyhow::Result;
use std::io::{self, Write};
use std::sync::atomic::Ordering;

/// More violations than this are counted, not told.
const TOLD: usize = 20;

pub(super) fn write(
    options: &Options,
    stage: &Stage,
    kills: &Kills,
    evidence: &Evidence,
    violations: &[String],
) -> Result<()> {
    let mut out = io::stdout().lock();
    let sagas = || evidence.sagas.values();
    let ended = |end| sagas().filter(|saga| saga.end == end).count();
    writeln!(out, "\nseed         {}", options.seed)?;
    writeln!(
        out,
        "sagas        {}: {} committed, {} compensated, {} stuck, {} not ended",
        evidence.sagas.len(),
        ended(End::Committed),
        ended(End::Compensated),
        ended(End::Stuck),
        ended(End::Open),
    )?;
    for kind in Kind::ALL {
        let count = |end| {
            sagas()
                .filter(|saga| saga.kind == kind && saga.end == end)
                .count()
        };
        writeln!(
            out,
            "  {:<10} {} committed, {} compensated, {} stuck",
            kind.name(),
            count(End::Committed),
            count(End::Compensated),
            count(End::Stuck)
        )?;
    }
    let (median, longest) = kills.times();
    writeln!(
        out,
        "kills        {}, {} of them during a start; {} sagas lived through one or more, {} through several",
        kills.count,
        kills.starting,
        sagas().filter(|saga| saga.restarts > 0).count(),
        sagas().filter(|saga| saga.restarts > 1).count(),
    )?;
    writeln!(
        out,
        "starts       ready after {median:.0?} (median), {longest:.0?} (longest)"
    )?;
    let Tally {
        messages,
        resets,
        silences,
        failures,
        slow,
        duplicates,
        direct,
        ..
    } = &*stage.tally;
    let [messages, resets, silences, failures, slow, duplicates, direct] =
        [messages, resets, silences, failures, slow, duplicates, direct]
            .map(|count| count.load(Ordering::Relaxed));
    writeln!(
        out,
        "messages     {messages} to participants: {resets} reset, {silences} without an answer, {failures} answered 500, \
         {slow} slow, {duplicates} delivered twice; {} bookings refused because they came after their cancellation",
        stage.held_off()
    )?;
    let records = &evidence.records;
    let answers: usize = records.iter().map(|record| record.answers.len()).sum();
    let broken: u64 = records.iter().map(|record| record.broken).sum();
    let without = records.iter().filter(|record| record.answers.is_empty()).count();
    writeln!(
        out,
        "callers      {} trips: {answers} answers; {broken} connections broke, {direct} requests met no Qbox; \
         {without} callers left without an answer",
        records.len()
    )?;
    for violation in violations.iter().take(TOLD) {
        writeln!(out, "violation: {violation}")?;
    }
    if violations.len() > TOLD {
        writeln!(out, "… and {} more", violations.len() - TOLD)?;
    }
    writeln!(out, "{} violations", violations.len())?;
    Ok(out.flush()?)
}
