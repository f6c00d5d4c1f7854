//! The spans of sagas as a collector gets them from the real binary: one trace from the caller to each attempt, each compensation and the
//! sagas below, over a restart too; and nobody waits for a collector that isn't there.

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use qbox_tests::{Act, Collector, DEADLINE, Qbox, Settings, World, attribute, wait_for, workspace};
use rustix::process::Signal;
use std::collections::HashSet;
use std::thread;
use std::time::Duration;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
/// Where the collector is. The service beside it is no part of the sagas' way.
const TELEMETRY: &str = "[telemetry]\notlp = \"http://trips.default.svc:4318\"\n";

fn settings(sagas: &[String]) -> Settings {
    Settings {
        extra: TELEMETRY.to_owned(),
        ..Settings::sagas(sagas)
    }
}

fn book_trip() -> Result<String> {
    Ok(std::fs::read_to_string(workspace().join(qbox_tests::BOOK_TRIP))?)
}

fn collector(world: &World) -> Result<Collector> {
    Ok(Collector::listen(world.pod_of("trips")?.listen(4318)?))
}

/// Sends a trigger inside the caller's trace: the status.
fn send(world: &World, url: &str, flags: &str) -> Result<u16> {
    let parent = format!("traceparent: 00-{TRACE}-{CALLER}-{flags}");
    let words = [
        "-X",
        "POST",
        url,
        "-d",
        WISH,
        "-H",
        &parent,
        "-H",
        "tracestate: congo=t61",
    ];
    Ok(world.client.http(words)?.0)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is(span: &Span, name: &str, value: &str) -> bool {
    attribute(span, name).as_deref() == Some(value)
}

/// Waits for the spans of all those sagas to have ended, and gives all that have come by then.
fn spans_of(collector: &Collector, sagas: &[&str]) -> Result<Vec<Span>> {
    wait_for("the sagas' spans", DEADLINE, || {
        let spans = collector.spans()?;
        let roots: Vec<_> = spans
            .iter()
            .filter(|span| attribute(span, "qbox.saga.outcome").is_some())
            .collect();
        let all = sagas
            .iter()
            .all(|saga| roots.iter().any(|root| is(root, "qbox.saga.name", saga)));
        Ok(all.then_some(spans))
    })
}

fn root<'a>(spans: &'a [Span], saga: &str) -> Result<&'a Span> {
    let mut roots = spans
        .iter()
        .filter(|span| attribute(span, "qbox.saga.outcome").is_some() && is(span, "qbox.saga.name", saga));
    let root = roots.next().context("no span of the saga")?;
    ensure!(roots.next().is_none(), "two spans of one saga");
    Ok(root)
}

/// The attempts of one step, by direction.
fn attempts<'a>(spans: &'a [Span], step: &str, direction: &str) -> Vec<&'a Span> {
    let found = spans.iter().filter(|span| is(span, "qbox.step", step));
    found
        .filter(|span| is(span, "qbox.direction", direction))
        .collect()
}

/// What must hold of all spans, whatever happened.
fn sound(spans: &[Span]) -> Result<()> {
    let mut ids = HashSet::new();
    for span in spans {
        ensure!(hex(&span.trace_id) == TRACE, "another trace: {span:#?}");
        ensure!(span.trace_state == "congo=t61", "{span:#?}");
        ensure!(ids.insert(&span.span_id), "an id that was there: {span:#?}");
        ensure!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
    }
    for span in spans {
        let parent = &span.parent_span_id;
        ensure!(
            hex(parent) == CALLER || ids.contains(parent),
            "its parent is nowhere: {span:#?}"
        );
    }
    Ok(())
}

/// The span that each of a service's requests named.
fn named(world: &World, service: &str, method: &str) -> Result<Vec<String>> {
    let asked = world.service(service)?.asked();
    let asked = asked.iter().filter(|asked| asked.method == method);
    asked
        .map(|asked| {
            let parent = asked.header("traceparent").context("no traceparent")?;
            let fields: Vec<_> = parent.split('-').collect();
            ensure!(fields.len() == 4 && fields[1] == TRACE, "{parent}");
            Ok(fields[2].to_owned())
        })
        .collect()
}

#[test]
fn a_trip_is_one_trace_from_its_caller_to_each_attempt() -> Result<()> {
    let world = World::new(&settings(&[book_trip()?]))?;
    let collector = collector(&world)?;
    let status = send(&world, "http://trips.default.svc:8080/trips/7?api_key=hush", "01")?;
    ensure!(status == 201, "{status}");
    let spans = spans_of(&collector, &["book-trip"])?;
    sound(&spans)?;
    let root = root(&spans, "book-trip")?;
    ensure!(
        hex(&root.parent_span_id) == CALLER && root.kind() == SpanKind::Server,
        "{root:#?}"
    );
    for (name, value) in [
        ("qbox.saga.outcome", "committed"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "201"),
        ("http.route", "/trips/{trip}"),
        ("url.path", "/trips/7"),
        ("server.address", "trips.default.svc"),
        ("server.port", "8080"),
    ] {
        ensure!(is(root, name, value), "{name}: {root:#?}");
    }
    ensure!(root.status.is_none(), "{root:#?}");
    for step in ["hotel", "flight", "car"] {
        let found = attempts(&spans, step, "transaction");
        let [attempt] = found[..] else {
            anyhow::bail!("{step}: {found:#?}");
        };
        ensure!(
            attempt.parent_span_id == root.span_id && attempt.kind() == SpanKind::Client,
            "{attempt:#?}"
        );
        ensure!(
            named(&world, step, "PUT")? == [hex(&attempt.span_id)],
            "{step}: the request names its span"
        );
        ensure!(
            is(attempt, "http.request.method", "PUT") && is(attempt, "qbox.outcome", "applied"),
            "{attempt:#?}"
        );
        ensure!(
            attribute(attempt, "url.full").is_some_and(|url| url.starts_with("http://")),
            "{attempt:#?}"
        );
        ensure!(
            is(attempt, "server.address", &format!("{step}.default.svc")),
            "{attempt:#?}"
        );
    }
    ensure!(!format!("{spans:?}").contains("hush"), "a secret in a span");
    let metrics = world.qbox.admin().get("/metrics")?.body;
    ensure!(
        metrics.contains("qbox_spans_total{fate=\"dropped\"} 0"),
        "{metrics}"
    );
    // The caller records nothing, so nobody does.
    let before = collector.spans()?.len();
    let status = send(&world, "http://trips.default.svc:8080/trips/8", "00")?;
    ensure!(status == 201, "{status}");
    let status = send(&world, "http://trips.default.svc:8080/trips/9", "01")?;
    ensure!(status == 201, "{status}");
    let after = wait_for("the third trip's spans", DEADLINE, || {
        let spans = collector.spans()?;
        Ok((spans.len() >= 2 * before).then_some(spans))
    })?;
    ensure!(after.len() == 2 * before, "{} and {before}", after.len());
    Ok(())
}

#[test]
fn compensations_and_attempts_that_fail_are_told_as_such() -> Result<()> {
    let world = World::new(&settings(&[book_trip()?]))?;
    world.service("car")?.when_booking(Act::Refuse(409));
    let status = send(&world, "http://trips.default.svc:8080/trips/7", "01")?;
    ensure!(status == 502, "{status}");
    // It wasn't there yet: nobody has waited for it, and what was told meanwhile still gets there.
    let collector = collector(&world)?;
    let spans = spans_of(&collector, &["book-trip"])?;
    sound(&spans)?;
    let root = root(&spans, "book-trip")?;
    ensure!(
        is(root, "qbox.saga.outcome", "compensated") && is(root, "qbox.saga.failed_step", "car"),
        "{root:#?}"
    );
    ensure!(
        root.status.as_ref().is_some_and(|status| status.code == 2),
        "{root:#?}"
    );
    ensure!(
        root.events.iter().any(|event| event.name == "compensating"),
        "{root:#?}"
    );
    let refused = attempts(&spans, "car", "transaction");
    ensure!(
        refused.len() == 1 && is(refused[0], "error.type", "409"),
        "{refused:#?}"
    );
    for step in ["hotel", "flight"] {
        let undone = attempts(&spans, step, "compensation");
        ensure!(undone.len() == 1, "{step}: {undone:#?}");
        ensure!(
            undone[0].parent_span_id == root.span_id && undone[0].status.is_none(),
            "{:#?}",
            undone[0]
        );
        ensure!(
            named(&world, step, "DELETE")? == [hex(&undone[0].span_id)],
            "{step}"
        );
    }
    Ok(())
}

#[test]
fn a_nested_saga_is_below_the_attempt_that_began_it() -> Result<()> {
    let saga = |name: &str, host: &str, steps: &[(&str, &str)]| {
        let steps: String = steps
            .iter()
            .map(|(step, url)| {
                format!(
                    "[[step]]\nname = \"{step}\"\nrequest = {{ method = \"PUT\", url = \"http://{url}.default.svc:8080/{name}/${{trigger.path.id}}\" }}\n\
                     [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://{url}.default.svc:8080/{name}/${{trigger.path.id}}\" }}\n"
                )
            })
            .collect();
        let method = if name == "outer" { "POST" } else { "PUT" };
        format!(
            "name = \"{name}\"\norder = \"sequential\"\n[trigger]\nmethod = \"{method}\"\n\
             url = \"http://{host}.default.svc:8080/outer/{{id}}\"\n{steps}"
        )
    };
    // The outer one's first step is the trigger of the inner one; its second fails, so that the inner one is taken back.
    let outer = saga("outer", "trips", &[("inner", "flight"), ("hotel", "hotel")]);
    let inner = saga("inner", "flight", &[("car", "car")]);
    let world = World::new(&settings(&[outer, inner]))?;
    world.service("hotel")?.when_booking(Act::Refuse(409));
    let collector = collector(&world)?;
    let status = send(&world, "http://trips.default.svc:8080/outer/7", "01")?;
    ensure!(status == 502, "{status}");
    let spans = spans_of(&collector, &["outer", "inner"])?;
    let spans = match spans
        .iter()
        .filter(|span| attribute(span, "qbox.saga.outcome").is_some())
        .count()
    {
        3 => spans,
        _ => wait_for("the inner saga's second span", DEADLINE, || {
            let spans = collector.spans()?;
            let ends = spans
                .iter()
                .filter(|span| attribute(span, "qbox.saga.outcome").is_some());
            Ok((ends.count() == 3).then_some(spans))
        })?,
    };
    sound(&spans)?;
    let outer = root(&spans, "outer")?;
    let began = attempts(&spans, "inner", "transaction");
    ensure!(
        began.len() == 1 && began[0].parent_span_id == outer.span_id,
        "{began:#?}"
    );
    let committed = spans
        .iter()
        .find(|span| is(span, "qbox.saga.name", "inner") && is(span, "qbox.saga.outcome", "committed"))
        .context("the inner saga was committed")?;
    ensure!(committed.parent_span_id == began[0].span_id, "{committed:#?}");
    ensure!(is(committed, "qbox.parent.step", "inner"), "{committed:#?}");
    let taken_back = spans
        .iter()
        .find(|span| is(span, "qbox.saga.name", "inner") && is(span, "qbox.saga.outcome", "compensated"))
        .context("the inner saga was taken back")?;
    ensure!(taken_back.parent_span_id == committed.span_id, "{taken_back:#?}");
    let undone = attempts(&spans, "car", "compensation");
    ensure!(
        undone.len() == 1 && undone[0].parent_span_id == taken_back.span_id,
        "{undone:#?}"
    );
    Ok(())
}

#[test]
fn a_saga_that_a_restart_takes_up_goes_on_in_its_trace() -> Result<()> {
    // Nothing ends by itself before the kill.
    let settings = settings(&[book_trip()?.replace("timeout = \"2s\"", "timeout = \"30s\"")]);
    let mut world = World::new(&settings)?;
    let collector = collector(&world)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(60)));
    thread::scope(|scope| -> Result<()> {
        let caller = scope.spawn(|| send(&world, "http://trips.default.svc:8080/trips/7", "01"));
        wait_for("all three to have booked, and two spans", DEADLINE, || {
            let told = collector.spans()?.len();
            Ok((world.booked("7").len() == 3 && told == 2).then_some(()))
        })?;
        world.qbox.signal(Signal::KILL)?;
        drop(caller.join());
        Ok(())
    })?;
    world.service("car")?.script(|_| Act::Serve);
    world.qbox.stop(Signal::KILL)?;
    world.qbox = Qbox::start(&world.node, &settings)?;
    let spans = spans_of(&collector, &["book-trip"])?;
    sound(&spans)?;
    let root = root(&spans, "book-trip")?;
    ensure!(
        hex(&root.parent_span_id) == CALLER && is(root, "qbox.saga.outcome", "compensated"),
        "{root:#?}"
    );
    ensure!(
        root.events.iter().any(|event| event.name == "recovered"),
        "{root:#?}"
    );
    for step in ["hotel", "flight", "car"] {
        let sent = attempts(&spans, step, "transaction");
        ensure!(
            sent.len() == 1 && sent[0].parent_span_id == root.span_id,
            "{step}: {sent:#?}"
        );
        ensure!(
            root.start_time_unix_nano <= sent[0].start_time_unix_nano,
            "{step}: {sent:#?}"
        );
        let undone = attempts(&spans, step, "compensation");
        ensure!(
            undone.len() == 1 && undone[0].parent_span_id == root.span_id,
            "{step}: {undone:#?}"
        );
    }
    let lost = attempts(&spans, "car", "transaction");
    ensure!(
        is(lost[0], "error.type", "restart") && is(lost[0], "http.request.method", "PUT"),
        "{lost:#?}"
    );
    ensure!(
        named(&world, "car", "PUT")? == [hex(&lost[0].span_id)],
        "{lost:#?}"
    );
    Ok(())
}
