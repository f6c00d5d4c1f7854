//! The demo: two bookings from unmodified curls, one that succeeds and one whose car is refused, shown as timelines.
//!
//! It looks at Qbox only as a user can: its admin API, its command line, the services' ledgers.

mod page;
mod stage;
mod timeline;

use crate::stop::Stop;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use stage::Stage;
use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

/// How the demo is to go.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// End after the two bookings.
    pub once: bool,
    /// A plain port instead of eBPF.
    pub explicit: bool,
}

/// The class of car that the demo's car service never has.
const REFUSED_CAR: &str = "limousine";

/// How often new sagas are looked for while the user tries.
const LOOK: Duration = Duration::from_millis(300);

/// Runs the demo to its end, which is Ctrl-C unless `once`.
///
/// # Errors
/// Something can't be started, or a ledger isn't as it has to be.
pub fn run(options: Options) -> Result<()> {
    let stop = Stop::on_signals()?;
    // Not `println!`: an output that has gone, as in `| head`, must end the demo in good order.
    let mut out = io::stdout();
    writeln!(out, "Starting Qbox and four services: trips, hotel, flight, car")?;
    let mut stage = Stage::set(options.explicit)?;
    let ended = show(&mut out, &stage, &stop, options.once);
    let stopped = stage.stop();
    match ended {
        Err(error) if is_broken_pipe(&error) => stopped,
        ended => ended.and(stopped),
    }
}

/// Nobody reads the output any more.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn show(out: &mut impl Write, stage: &Stage, stop: &Stop, once: bool) -> Result<()> {
    writeln!(out, "{}\n", stage.describe())?;
    let mut shown = HashSet::new();
    shown.insert(book(out, stage, &ALL_AGREE)?);
    if stop.asked() {
        return Ok(());
    }
    shown.insert(book(out, stage, &NO_CAR)?);
    if once {
        writeln!(
            out,
            "Both ledgers are right: all three have booked trip 7, none has booked trip 8."
        )?;
        return Ok(());
    }
    writeln!(out, "Qbox stays up. Try it from another terminal:\n")?;
    writeln!(out, "  {}", stage.command_line("9", "small"))?;
    writeln!(out, "  {}    # refused", stage.command_line("10", REFUSED_CAR))?;
    writeln!(
        out,
        "\nThe page, for a browser on this machine: http://{}/",
        stage.page()?
    )?;
    writeln!(out, "\nCtrl-C ends it and leaves nothing behind.\n")?;
    while !stop.within(LOOK) {
        follow(out, stage, &mut shown)?;
    }
    writeln!(out, "\nStopping.")?;
    Ok(())
}

/// One booking of the demo.
struct Booking {
    title: &'static str,
    pod: usize,
    trip: &'static str,
    car: &'static str,
    status: u16,
    booked: bool,
}

const ALL_AGREE: Booking = Booking {
    title: "Trip 7: all three services agree",
    pod: 0,
    trip: "7",
    car: "small",
    status: 201,
    booked: true,
};

const NO_CAR: Booking = Booking {
    title: "Trip 8: the car is refused, so none may stay booked",
    pod: 1,
    trip: "8",
    car: REFUSED_CAR,
    status: 502,
    booked: false,
};

/// Sends one booking and shows what came of it. Gives back the saga's id.
fn book(out: &mut impl Write, stage: &Stage, booking: &Booking) -> Result<String> {
    writeln!(out, "== {}\n", booking.title)?;
    writeln!(
        out,
        "   {}",
        stage.curl_line(booking.pod, booking.trip, booking.car)
    )?;
    writeln!(out, "   {}", timeline::ledgers("before", &stage.ledgers()))?;
    let (status, body) = stage.curl(booking.pod, booking.trip, booking.car)?;
    let reply: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    let id = reply.get("saga").and_then(Value::as_str).map(str::to_owned);
    if let Some(id) = &id {
        write!(out, "{}", timeline::saga(&stage.admin().saga(id)?))?;
    }
    writeln!(out, "   {:>10}   reply {status}: {body}", "")?;
    writeln!(out, "   {}\n", timeline::ledgers("after", &stage.ledgers()))?;
    let booked = stage.booked(booking.trip);
    let expected: &[&str] = if booking.booked {
        &["hotel", "flight", "car"]
    } else {
        &[]
    };
    if booked != expected {
        bail!(
            "trip {} is booked at {booked:?}, and should be at {expected:?}",
            booking.trip
        );
    }
    if status != booking.status {
        bail!("the answer was {status}, and should have been {}", booking.status);
    }
    id.context("the reply names no saga: did the request pass through?")
}

/// Shows the sagas that have ended since the last look.
fn follow(out: &mut impl Write, stage: &Stage, shown: &mut HashSet<String>) -> Result<()> {
    for summary in stage.admin().sagas()? {
        let ended = summary.get("ended").is_some_and(|at| !at.is_null());
        let Some(id) = summary.get("id").and_then(Value::as_str) else {
            continue;
        };
        if !ended || !shown.insert(id.to_owned()) {
            continue;
        }
        write!(out, "{}", timeline::saga(&stage.admin().saga(id)?))?;
        writeln!(out, "   {}\n", timeline::ledgers("now", &stage.ledgers()))?;
    }
    Ok(())
}

/// What the user of the demo sends.
fn wish(car: &str) -> String {
    json!({ "guest": "Ada", "nights": 3, "car": car }).to_string()
}
