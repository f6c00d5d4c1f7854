//! `qbox sagas tail`: what happens to all sagas, line by line, for as long as someone reads.

use super::Asking;
use super::colour::Colour;
use super::show::{plain, text};
use super::time::moment;
use crate::saga::Timestamp;
use anyhow::Result;
use serde_json::Value;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Prints what the API tells at `path`. Ends when it does, or when nobody reads any more.
pub(super) fn tail(asking: &Asking, path: &str, follow: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let mut out = io::stdout();
    let mut gone = false;
    runtime.block_on(client.lines(path, |line| {
        let drawn = match asking.json {
            true => line.to_owned(),
            false => draw(line),
        };
        match writeln!(out, "{drawn}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            // A reader that has gone (`| head`) has seen enough.
            Err(_) => {
                gone = true;
                ControlFlow::Break(())
            }
        }
    }))?;
    if follow && !gone {
        // Nobody is left to be told that standard error is closed.
        drop(writeln!(io::stderr(), "Qbox has ended"));
    }
    Ok(ExitCode::SUCCESS)
}

fn draw(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        return plain(line).into_owned();
    };
    let Some(at) = event.get("at").and_then(Value::as_u64) else {
        return format!("-- {}", text(&event, "text"));
    };
    let at = moment(Timestamp(at));
    let (saga, name, what) = (text(&event, "saga"), text(&event, "name"), text(&event, "text"));
    let what = match Colour::of(&text(&event, "kind")) {
        Some(colour) => colour.paint(&what),
        None => what.into_owned(),
    };
    format!("{at}  {saga}  {name}  {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_whom_and_what() {
        let line = r#"{"saga":"0190","name":"book-trip","at":1999,"text":"car: failed \u001b[2J","new":7}"#;
        let drawn = "1970-01-01T00:00:00.001Z  0190  book-trip  car: failed \\u{1b}[2J";
        assert_eq!(draw(line), drawn);
        let missed = r#"{"kind":"missed","missed":7,"text":"7 events were missed"}"#;
        assert_eq!(draw(missed), "-- 7 events were missed");
        assert_eq!(draw("not \u{7} JSON"), "not \\u{7} JSON");
    }
}
