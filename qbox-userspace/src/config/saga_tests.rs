//! A saga file to its plan: every key of the format, the defaults, and the warnings.

use super::{Code, Diagnostic, Severity, load_saga, plan_hash};
use crate::saga::{
    BodyTemplate, CompensateWhen, Kind, Mode, OnRecovery, Plan, ReplyPlan, RequestPlan, ResponseMatch,
    RetryOn, Segment, StepId,
};
use std::time::Duration;

/// Every key that a saga file can have.
pub(super) const WHOLE: &str = r#"
name = "book-trip"
order = "parallel"
timeout = "45s"
reply_timeout = "10s"
mode = "observe"
on_recovery = "resume"
lock = "${trigger.path.trip}"

[trigger]
method = "POST"
url = "http://Trips.default.svc:8080/trips/{trip}"
headers = { x-tenant = "acme" }
query = { dry = "0" }
json = { kind = "book", guest.vip = true }
priority = 3
dedupe = "${trigger.json.order}"

[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel:8080/bookings/${trigger.path.trip}", headers = { x-a = "${trigger.headers.x-a:none}" }, json = { guest = "${trigger.json.guest}", nights = 3 } }
success = [{ status = ["2xx", 304], headers = { x-ok = "yes" }, body = "booked" }]
refused = [{ status = 409, json = { "/why" = "full" } }]
timeout = "2s"
retry = { attempts = 3, on = ["connect", "timeout", "5xx", "429"], backoff = "50ms..1s", max_elapsed = "20s" }
compensate_when = "always"

[step.probe]
request = { method = "GET", url = "http://hotel:8080/bookings/${trigger.path.trip}" }
applied = [{ status = 200 }]
refused = [{ status = 404 }]
timeout = "1s"
retry = { attempts = 2 }

[[step.compensate]]
request = { method = "DELETE", url = "http://hotel:8080/bookings/${parent.response.json.id:0}" }
success = [{ status = "2xx" }]
timeout = "3s"
retry = { backoff = "100ms..30s" }

[[step.compensate]]
request = { method = "POST", url = "http://mail:8080/sorry", body = "${steps.hotel.response.body}" }
needs_response = true

[[step]]
name = "flight"
after = ["hotel"]
when = [{ value = "${trigger.json.fly}", in = ["yes", "true"] }, { value = "${steps.hotel.response.json.x}", present = false }]
request = { method = "PUT", url = "http://flight/seats?class=${trigger.query.class:2}" }

[[step]]
name = "trips"
kind = "pivot"
after = ["hotel", "flight"]
request = "forward"

[[step]]
name = "mail"
kind = "retriable"
after = ["trips"]
request = { method = "PUT", url = "http://mail/x" }

[reply.success]
from = "trips"

[reply.failure]
status = 409
headers = { x-failed = "${saga.failed_step}" }
json = { failed = "${saga.failed_step}", outcome = "${saga.outcome}" }
"#;

fn good(text: &str) -> (Plan, Vec<Diagnostic>) {
    load_saga(text, "a.toml").unwrap_or_else(|found| {
        let drawn: Vec<String> = found.iter().map(|d| d.render(false)).collect();
        panic!("{}", drawn.join("\n"))
    })
}

#[test]
fn every_key_of_the_format_is_read() {
    let (plan, warnings) = good(WHOLE);
    let codes: Vec<Code> = warnings.iter().map(|w| w.code).collect();
    assert_eq!(codes, [Code::NothingUndone]);
    assert_eq!(plan.timeout, Duration::from_secs(45));
    assert_eq!(plan.reply_timeout, Duration::from_secs(10));
    assert_eq!((plan.mode, plan.on_recovery), (Mode::Observe, OnRecovery::Resume));
    assert!(plan.lock.is_some() && plan.trigger.dedupe.is_some());
    let trigger = &plan.trigger;
    assert_eq!((trigger.host.as_str(), trigger.port), ("trips.default.svc", 8080));
    let path = [
        Segment::Literal("trips".to_owned()),
        Segment::Capture("trip".to_owned()),
    ];
    assert_eq!(trigger.path, path);
    assert_eq!(
        (trigger.query.len(), trigger.headers.len(), trigger.json.len()),
        (1, 1, 2)
    );
    assert_eq!(trigger.priority, 3);
    let [hotel, flight, trips, mail] = plan.steps.as_slice() else {
        panic!("{}", plan.steps.len())
    };
    assert!(hotel.success[0].status.as_ref().unwrap().contains(304));
    assert!(!hotel.success[0].status.as_ref().unwrap().contains(305));
    assert_eq!(hotel.success[0].headers.len(), 1);
    assert!(hotel.success[0].body.is_some());
    assert_eq!(hotel.refused[0].json.len(), 1);
    assert_eq!(hotel.timeout, Duration::from_secs(2));
    assert_eq!(hotel.retry.attempts, Some(3));
    assert_eq!(hotel.retry.on[3], RetryOn::Status(429));
    assert_eq!(hotel.retry.max_elapsed, Some(Duration::from_secs(20)));
    assert_eq!(hotel.compensate_when, CompensateWhen::Always);
    let probe = hotel.probe.as_ref().unwrap();
    assert_eq!(
        (probe.timeout, probe.retry.attempts),
        (Duration::from_secs(1), Some(2))
    );
    let [first, second] = hotel.compensations.as_slice() else {
        panic!("two")
    };
    assert!(!first.success[0].status.as_ref().unwrap().contains(404));
    assert_eq!(
        (first.retry.attempts, first.retry.backoff_max),
        (None, Duration::from_secs(30))
    );
    assert!(second.needs_response && second.success[0].status.as_ref().unwrap().contains(404));
    assert_eq!(
        (flight.after.as_slice(), flight.when.len()),
        (&[StepId(0)][..], 2)
    );
    assert_eq!((trips.kind, &trips.request), (Kind::Pivot, &RequestPlan::Forward));
    assert_eq!((mail.kind, mail.retry.attempts), (Kind::Retriable, None));
    assert_eq!(plan.reply_success, Some(ReplyPlan::From(StepId(2))));
    let Some(ReplyPlan::Send(reply)) = &plan.reply_failure else {
        panic!("a reply")
    };
    assert_eq!(reply.status, 409);
    assert!(matches!(reply.body, BodyTemplate::Json(_)));
}

const LEAST: &str = "name = \"x\"\n[trigger]\nurl = \"http://a/{id}\"\n[[step]]\nname = \"one\"\n\
                     request = { method = \"PUT\", url = \"http://b/\" }\n";

#[test]
fn what_is_left_out_has_the_formats_defaults() {
    let (plan, warnings) = good(LEAST);
    assert_eq!(warnings, []);
    assert_eq!(plan.timeout, Duration::from_secs(60));
    assert_eq!(plan.reply_timeout, Duration::from_secs(30));
    assert_eq!(
        (plan.mode, plan.on_recovery),
        (Mode::Enforce, OnRecovery::Compensate)
    );
    assert_eq!((plan.trigger.port, plan.trigger.method.as_deref()), (80, None));
    let step = &plan.steps[0];
    assert_eq!(
        (step.timeout, step.retry.attempts),
        (Duration::from_secs(5), Some(1))
    );
    assert_eq!((step.kind, step.compensations.len()), (Kind::Compensatable, 0));
    let refused = step.refused[0].status.as_ref().unwrap();
    assert!(refused.contains(404) && !refused.contains(408) && !refused.contains(429));
    assert_eq!((plan.reply_success, plan.reply_failure), (None, None));
    let more = "[step.probe]\nrequest = { method = \"GET\", url = \"http://b/\" }\n[[step.compensate]]\n\
                request = { method = \"DELETE\", url = \"http://b/\" }\n[reply.success]\nbody = \"\"\n[reply.failure]\nbody = \"\"\n";
    let (plan, _) = good(&format!("{LEAST}{more}"));
    let step = &plan.steps[0];
    let (probe, undo) = (step.probe.as_ref().unwrap(), &step.compensations[0]);
    assert_eq!(
        (probe.timeout, undo.timeout),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    let holds = |any: &[ResponseMatch]| {
        [204, 404, 410, 409].map(|status| {
            any[0].status.as_ref().unwrap().contains(status)
                || any
                    .get(1)
                    .is_some_and(|other| other.status.as_ref().unwrap().contains(status))
        })
    };
    assert_eq!(holds(&probe.applied), [true, false, false, false]);
    assert_eq!(holds(&probe.refused), [false, true, true, false]);
    assert_eq!(holds(&undo.success), [true, true, true, false]);
    assert_eq!((undo.retry.attempts, undo.needs_response), (None, false));
    let status = |reply: &Option<ReplyPlan>| match reply {
        Some(ReplyPlan::Send(reply)) => reply.status,
        _ => panic!("a reply"),
    };
    assert_eq!(
        (status(&plan.reply_success), status(&plan.reply_failure)),
        (200, 502)
    );
}

#[test]
fn who_says_how_long_to_try_does_not_mean_once() {
    let retry = |text: &str| {
        good(&format!("{LEAST}retry = {{ {text} }}\n")).0.steps[0]
            .retry
            .clone()
    };
    let seconds = Some(Duration::from_secs(9));
    let (long, both) = (
        retry("max_elapsed = \"9s\""),
        retry("max_elapsed = \"9s\", attempts = 3"),
    );
    assert_eq!((long.attempts, long.max_elapsed), (None, seconds));
    assert_eq!((both.attempts, both.max_elapsed), (Some(3), seconds));
}

#[test]
fn a_sequential_saga_is_a_chain() {
    let text = LEAST.replacen("[trigger]", "order = \"sequential\"\n[trigger]", 1)
        + "[[step]]\nname = \"two\"\nrequest = { method = \"GET\", url = \"http://b/${steps.one.response.json.id}\" }\n\
           [[step]]\nname = \"three\"\nrequest = { method = \"GET\", url = \"http://b/\" }\n";
    let (plan, _) = good(&text);
    let after: Vec<_> = plan.steps.iter().map(|s| s.after.clone()).collect();
    assert_eq!(after, [vec![], vec![StepId(0)], vec![StepId(1)]]);
}

#[test]
fn the_hash_is_of_the_plan_and_not_of_the_text() {
    let hash = |text: &str| plan_hash(&good(text).0);
    assert_eq!(hash(LEAST), hash(&format!("# a comment\n{LEAST}")));
    assert_ne!(hash(LEAST), hash(&LEAST.replace("http://b/", "http://c/")));
}

#[test]
fn what_is_legal_but_probably_not_meant_is_a_warning() {
    let two = |first: &str, second: &str| {
        format!(
            "name = \"x\"\ntimeout = \"10s\"\n[trigger]\nurl = \"http://a/\"\n[[step]]\nname = \"one\"\n{first}\n\
             [[step]]\nname = \"two\"\n{second}\n"
        )
    };
    let get = "request = { method = \"GET\", url = \"http://b/\" }";
    let post = "request = { method = \"POST\", url = \"http://b/\" }";
    for (text, code, line) in [
        (two(post, get), Code::NothingUndone, 6),
        (
            two(
                get,
                &format!("{post}\nafter = [\"one\"]\nretry = {{ attempts = 2, on = [\"timeout\"] }}"),
            ),
            Code::UnsafeRetry,
            12,
        ),
        (two(get, &format!("{get}\ntimeout = \"11s\"")), Code::Timeouts, 11),
        (
            two(&format!("{get}\nkind = \"pivot\""), get),
            Code::AfterPivot,
            10,
        ),
        (
            two(get, &format!("{get}\nretry = {{ backoff = \"1s..2s\" }}")),
            Code::NoEffect,
            11,
        ),
        (
            two(
                &format!("{get}\nkind = \"pivot\""),
                &format!(
                    "{get}\nafter = [\"one\"]\nkind = \"retriable\"\nretry = {{ max_elapsed = \"9s\" }}"
                ),
            ),
            Code::NoEffect,
            14,
        ),
        (
            two(get, &format!("{get}\ncompensate_when = \"always\"")),
            Code::NoEffect,
            11,
        ),
        (
            two(
                &format!("{get}\nwhen = [{{ value = \"${{trigger.query.a}}\", equals = \"1\" }}]"),
                "after = [\"one\"]\nrequest = { method = \"GET\", url = \"http://b/${steps.one.response.body}\" }",
            ),
            Code::MaybeSkipped,
            12,
        ),
    ] {
        let (_, warnings) = good(&text);
        let found: Vec<_> = warnings
            .iter()
            .map(|w| (w.severity, w.code, w.line_column().map(|(line, _)| line)))
            .collect();
        assert_eq!(found, [(Severity::Warning, code, Some(line))], "{text}");
        assert!(warnings[0].render(false).contains("help: "));
    }
}

#[test]
fn the_sagas_in_the_documentation_are_fit_to_run() {
    let pages = [
        include_str!("../../../README.md"),
        include_str!("../../../docs/saga-reference.md"),
    ];
    for page in pages {
        let fenced = page.split("```toml\n").skip(1);
        let sagas: Vec<&str> = fenced
            .filter_map(|rest| rest.split("```").next())
            .filter(|text| text.contains("[trigger]"))
            .collect();
        assert!(!sagas.is_empty());
        for text in sagas {
            let (_, warnings) = good(text);
            assert_eq!(warnings, [], "{text}");
        }
    }
}

#[test]
fn what_is_missing_at_the_end_of_a_file_is_placed_where_it_is_drawn() {
    for end in ["", "\n", "\n\n"] {
        let text = format!("name = \"x\"\ntrigger = {{ url = \"http://x/\"{end}");
        let found = load_saga(&text, "a.toml").unwrap_err();
        let (line, column) = found[0].line_column().unwrap();
        let drawn = found[0].render(false);
        assert!(
            drawn.contains(&format!("a.toml:{line}:{column}\n")),
            "{line}:{column} {drawn}"
        );
    }
}

proptest::proptest! {
    /// Whatever is typed: a plan, or findings that can be drawn at a place of the file.
    #[test]
    fn any_slip_of_the_pen_gives_a_plan_or_findings_with_places(
        at in 0..WHOLE.len(),
        gone in 0usize..40,
        put in r#"(\$\{|\}|\{|"|'|\[|\]|=|,|\.|:|/|%|#|\n|[a-z]{1,4}|[0-9]{1,20}|é|\\u0000|steps\.|json\.|-){0,4}"#,
    ) {
        let end = (at + gone).min(WHOLE.len());
        let text = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
        if let Err(found) = load_saga(&text, "a.toml") {
            assert!(found.iter().any(|f| f.severity == Severity::Error));
            for finding in found {
                let (line, column) = finding.line_column().unwrap();
                let drawn = finding.render(false);
                assert!(drawn.contains(&format!("a.toml:{line}:{column}")), "{drawn}");
                assert!(drawn.contains("help: "), "{drawn}");
            }
        }
    }
}
