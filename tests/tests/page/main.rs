//! The page in a real browser, over the real binary and real sagas: what it shows, what one does on it, and that what callers send is text.

mod browser;

use anyhow::{Context, Result};
use browser::Browser;
use qbox_tests::{Act, DEADLINE, Settings, World, wait_for};

const DESK: (u32, u32) = (1280, 860);
const PHONE: (u32, u32) = (390, 800);

/// The saga of `config/`, whose compensations are tried twice.
fn settings() -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let twice = "[[step.compensate]]\nretry = { attempts = 2, backoff = \"1ms..20ms\" }\n";
    Ok(Settings::saga(text.replace("[[step.compensate]]\n", twice)))
}

/// The car says no, in words that a careless page would run.
fn refuse(world: &World) -> Result<()> {
    world.service("car")?.when_booking(Act::Refuse(409));
    Ok(())
}

fn page(world: &World) -> Result<String> {
    let status = world.qbox.admin().json("/api/v1/status")?;
    Ok(format!(
        "http://{}/",
        status["admin"].as_str().context("no address")?
    ))
}

#[test]
fn a_saga_that_is_stuck_is_found_understood_and_retried_until_it_is_green() -> Result<()> {
    let _one = browser::one_at_a_time();
    let world = World::new(&settings()?)?;
    let page = page(&world)?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&page, DESK, "light")?;
    browser.see("main", "No saga yet")?;
    browser.see(".health", "ready")?;

    // Without a reload: one that succeeds, one that fails, one that gets stuck.
    world.book("1", r#"{"guest":"Ada"}"#)?;
    browser.see("table.sagas tbody tr", "committed")?;
    refuse(&world)?;
    world.book("2", r#"{"guest":"Ada"}"#)?;
    browser.see("table.sagas tbody tr", "compensated")?;
    world
        .service("hotel")?
        .script(|asked| match asked.method.as_str() {
            "DELETE" => Act::Refuse(500),
            _ => Act::Serve,
        });
    world.book("3", r#"{"guest":"Ada"}"#)?;
    browser.see(".need li", "hotel: answered 500")?;
    browser.look("list")?;

    // From the page alone: why, and what to do.
    browser.click(".need a")?;
    browser.see("section[aria-labelledby=why]", "hotel can't be finished")?;
    browser.see(
        "section[aria-labelledby=why]",
        "DELETE http://hotel.default.svc:8080/bookings/3",
    )?;
    browser.see(".graph .node.s-stuck", "hotel")?;
    browser.look("stuck")?;
    browser.click("text=Retry hotel")?;
    browser.see("dialog", "Sends what is stuck again")?;
    browser.look("decision")?;
    // Not without a reason.
    anyhow::ensure!(browser.evaluate("document.querySelector('dialog [type=submit]').disabled")? == true);
    browser.press("Escape")?;
    browser.gone("dialog")?;
    // It was not mended yet: stuck again, and that is told too.
    let before = world.service("hotel")?.count("DELETE");
    browser.click("text=Retry hotel")?;
    browser.fill("dialog input[required]", "let us see")?;
    browser.click("dialog [type=submit]")?;
    browser.see("[role=status].done", "Retry: recorded")?;
    browser.see("table.history", "decided: retry hotel (let us see)")?;
    // Both attempts of the policy once more, and it waits again: only then is the hotel mended.
    wait_for("the saga to be stuck again", DEADLINE, || {
        let again = world.service("hotel")?.count("DELETE") == before + 2;
        let sagas = world.qbox.admin().sagas()?;
        let stuck = sagas.iter().any(|saga| saga["state"] == "stuck");
        Ok((again && stuck).then_some(()))
    })?;

    world.service("hotel")?.script(|_| Act::Serve);
    browser.see("section[aria-labelledby=why]", "hotel can't be finished")?;
    browser.click("text=Retry hotel")?;
    browser.fill("dialog input[required]", "hotel is up again")?;
    browser.fill("dialog input[placeholder='your name']", "ada")?;
    browser.click("dialog [type=submit]")?;
    browser.see("h1", "compensated")?;
    browser.see("table.history", "ada decided: retry hotel (hotel is up again)")?;
    browser.gone("section[aria-labelledby=why]")?;
    browser.see(".graph .node.s-undone", "hotel")?;
    browser.look("compensated")?;
    anyhow::ensure!(world.booked("3").is_empty());

    browser.click(".crumbs a")?;
    browser.gone(".need")?;
    browser.see(".tiles .s-stuck dd", "0")?;
    Ok(())
}

#[test]
fn every_view_in_both_schemes_and_at_phone_width() -> Result<()> {
    let _one = browser::one_at_a_time();
    let world = World::new(&settings()?)?;
    let page = page(&world)?;
    world.book("1", r#"{"guest":"Ada"}"#)?;
    refuse(&world)?;
    world.book("2", r#"{"guest":"Ada"}"#)?;
    let sagas = world.qbox.admin().sagas()?;
    let failed = sagas
        .iter()
        .find(|saga| saga["state"] == "compensated")
        .context("none failed")?;
    let failed = failed["id"].as_str().context("no id")?;
    let mut browser = Browser::start(&world.node)?;
    for (name, size, scheme) in [
        ("light", DESK, "light"),
        ("dark", DESK, "dark"),
        ("phone", PHONE, "light"),
    ] {
        for (view, hash, selector, text) in [
            ("sagas", String::new(), "table.sagas", "book-trip"),
            ("saga", format!("#/saga/{failed}"), ".waterfall", "hotel"),
            (
                "definitions",
                "#/definitions".to_owned(),
                ".card",
                "trips.default.svc:8080/trips/{trip}",
            ),
            ("node", "#/node".to_owned(), "table.pods", "client-2"),
        ] {
            browser.open(&format!("{page}{hash}"), size, scheme)?;
            browser.see(selector, text)?;
            browser.see(".health", "ready")?;
            browser.look(&format!("{view}-{name}"))?;
        }
    }
    Ok(())
}

/// Beside the sagas that run, one that is only observed: its triggers come as they do, what would have been stands beside what was
/// answered, and all of it can be reached by the keyboard and read on a phone.
#[test]
fn observed_triggers_are_listed_as_they_come_and_show_what_would_have_been() -> Result<()> {
    let _one = browser::one_at_a_time();
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let observed = text
        .replace("[trigger]", "mode = \"observe\"\n[trigger]")
        .replace("\"book-trip\"", "\"only-look\"")
        .replace("\"parallel\"", "\"sequential\"")
        .replace("/trips/{trip}", "/looked/{trip}");
    anyhow::ensure!(
        observed.contains("only-look") && observed.contains("/looked/{trip}"),
        "{observed}"
    );
    let world = World::new(&Settings::sagas([text, observed]))?;
    let page = page(&world)?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&page, DESK, "light")?;
    browser.see("main", "One saga is only observed")?;
    browser.click("nav a[href='#/observed']")?;
    browser.see("main", "Nothing yet")?;
    browser.look("observed-none")?;

    // Without a reload: two triggers, the second with what a careless page would run.
    let look = |id: &str, body: &str| {
        let url = format!("http://trips.default.svc:8080/looked/{id}");
        world.client.http(["-X", "POST", &url, "-d", body])
    };
    let (status, _) = look("1", r#"{"guest":"Ada","car":"small"}"#)?;
    browser.see("table.observed tbody tr", "committed")?;
    browser.see(
        "table.observed tbody tr",
        "http://trips.default.svc:8080/looked/1",
    )?;
    look("2", r#"{"guest":"<img src=x onerror=alert(1)>"}"#)?;
    browser.see("table.observed tbody tr", "/looked/2")?;
    browser.see("table.observed tbody tr .n", &status.to_string())?;
    browser.look("observed")?;

    // By the keyboard to the youngest.
    browser.press("j")?;
    browser.press("Enter")?;
    browser.see("h1", "only-look")?;
    browser.see(".facts", "/looked/2")?;
    browser.see(".facts", "from the service itself")?;
    browser.see(".graph .node", "hotel")?;
    browser.see("table.would", "PUT http://hotel.default.svc:8080/bookings/2")?;
    browser.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")?;
    browser.see("table.would pre", "<img src=x onerror=alert(1)>")?;
    anyhow::ensure!(
        browser.count("main img")? == 0,
        "what a caller sent became markup"
    );
    anyhow::ensure!(browser.count(".graph .edge")? > 0, "the steps' order is missing");
    browser.look("observed-one")?;
    anyhow::ensure!(world.qbox.admin().sagas()?.is_empty());

    let observed = world.qbox.admin().json("/api/v1/observed")?;
    let id = observed["observed"][0]["id"].as_str().context("no id")?;
    for (name, size, scheme) in [("dark", DESK, "dark"), ("phone", PHONE, "light")] {
        browser.open(&format!("{page}#/observed"), size, scheme)?;
        browser.see("table.observed", "only-look")?;
        browser.look(&format!("observed-{name}"))?;
        browser.open(&format!("{page}#/observed/{id}"), size, scheme)?;
        browser.see("table.would", "PUT http://hotel.default.svc:8080/bookings/2")?;
        browser.look(&format!("observed-one-{name}"))?;
    }
    // Of that saga alone; from its definition.
    browser.open(&format!("{page}#/definitions"), DESK, "light")?;
    browser.click("text=its observed triggers")?;
    browser.see("table.observed", "only-look")?;
    browser.fill("input[type=search]", "another")?;
    browser.see("main", "Nothing of that saga was observed")?;
    // One that has made room for others, or never was.
    browser.open(
        &format!("{page}#/observed/00000000-0000-7000-8000-000000000000"),
        DESK,
        "light",
    )?;
    browser.see(".trouble", "nothing of that id was observed")
}

/// Pods that are captured no more are told on every view within 30 seconds, and one by one on the node's.
#[test]
fn pods_that_are_no_longer_captured_are_told() -> Result<()> {
    let _one = browser::one_at_a_time();
    let world = World::book_trip()?;
    let page = page(&world)?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&page, DESK, "light")?;
    browser.see(".health", "ready")?;
    let since = std::time::Instant::now();
    qbox_tests::detach(&world.node, "connect4")?;
    browser.see(".health.bad", "not ready")?;
    browser.see("[role=alert]", "the pod client is no longer captured")?;
    let told = since.elapsed();
    anyhow::ensure!(told < std::time::Duration::from_secs(30), "told after {told:?}");
    browser.click("nav a[href='#/node']")?;
    browser.see("section[aria-labelledby=ready]", "Not ready")?;
    browser.see("table.pods", "qbox's connect4 no longer run for its cgroup")?;
    browser.see("nav a[href='#/node'] .count", "6")?;
    browser.look("captured-no-more")
}

/// A saga that is undone, and listens to an attempt that it has given up, says why it has not ended.
#[test]
fn a_saga_that_only_waits_for_a_late_answer_says_so() -> Result<()> {
    let _one = browser::one_at_a_time();
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let settings = Settings {
        linger: Some("600s"),
        ..Settings::saga(text.replace("timeout = \"2s\"", "timeout = \"400ms\""))
    };
    let world = World::new(&settings)?;
    let page = page(&world)?;
    let late = Act::ServeAfter(std::time::Duration::from_secs(600));
    world.service("flight")?.when_booking(late);
    world.book("1", r#"{"guest":"Ada","nights":3,"car":"small"}"#)?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&page, DESK, "light")?;
    browser.see("table.sagas tbody tr", "waits for what may come late")?;
    browser.click("table.sagas tbody a")?;
    browser.see(
        "section[aria-labelledby=waits]",
        "It only waits for a late answer of flight",
    )?;
    browser.look("waits")?;
    browser.click("nav a[href='#/node']")?;
    browser.see(".facts", "only wait for a late answer")?;
    browser.see("table.maps", "flows")?;
    Ok(())
}

#[test]
fn what_callers_send_is_text() -> Result<()> {
    let _one = browser::one_at_a_time();
    let attack = r#"<img src=x onerror="alert(1)"><script>alert(2)</script>"#;
    // A step that sends what the caller sent, in a header and in a body, to a service that refuses it.
    let saga = r#"
name = "echo"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/echo/{what}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.what}", headers = { x-note = "${trigger.headers.x-note}" }, json = { note = "${trigger.body}" } }
"#;
    let world = World::new(&Settings::saga(saga))?;
    world.service("hotel")?.when_booking(Act::Refuse(409));
    let page = page(&world)?;
    let url = "http://trips.default.svc:8080/echo/%3Cscript%3Ealert(3)%3C%2Fscript%3E";
    let note = format!("X-Note: {attack}");
    world
        .client
        .http(["-X", "POST", url, "-H", &note, "-d", attack])?;
    let id = wait_for("the saga", DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        Ok(sagas
            .first()
            .and_then(|saga| saga["id"].as_str().map(str::to_owned)))
    })?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&format!("{page}#/saga/{id}"), DESK, "light")?;
    browser.see("table.history", "hotel: transaction sent")?;
    browser.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")?;
    browser.see("table.history pre", "<script>alert(2)</script>")?;
    anyhow::ensure!(browser.count("main img")? == 0 && browser.count("main script")? == 0);
    browser.look("what-callers-send")?;
    // Nor does the search field make anything of it.
    browser.open(&format!("{page}#/?name=%3Cimg%20src%3Dx%3E"), DESK, "light")?;
    browser.see("main", "No saga is like that")?;
    anyhow::ensure!(browser.count("main img")? == 0);
    browser.look("search")
}

#[test]
fn ten_thousand_sagas_are_listed_without_a_stall() -> Result<()> {
    let _one = browser::one_at_a_time();
    let saga = r#"
name = "many"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/many"
[[step]]
name = "hotel"
when = [{ value = "never", equals = "so" }]
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/1" }
"#;
    let world = World::new(&Settings::saga(saga))?;
    let page = page(&world)?;
    // One client that asks 10,000 times.
    let url = "http://trips.default.svc:8080/many?n=[1-10000]";
    let asked = world.client.run([
        "curl",
        "-s",
        "-Z",
        "-o",
        "/dev/null",
        "-X",
        "POST",
        "-d",
        "x",
        url,
    ])?;
    asked.ok()?;
    let mut browser = Browser::start(&world.node)?;
    browser.open(&page, DESK, "light")?;
    browser.see("table.sagas tbody tr", "committed")?;
    // One scrolls to where more is needed while the list's head is read anew, in which nothing is new: it comes all the same.
    browser.evaluate(
        "(async () => { const real = fetch; const head = await (await real('/api/v1/sagas?limit=200')).text(); \
         window.held = []; window.fetch = async (url, ...more) => { \
         if (!/\\/sagas\\?limit=200$/.test(url)) return real(url, ...more); \
         await new Promise((go) => held.push(go)); return new Response(head); }; \
         window.letGo = () => { window.fetch = real; held.forEach((go) => go()); }; })()",
    )?;
    let url = "http://trips.default.svc:8080/many?n=more";
    world.client.http(["-X", "POST", "-d", "x", url])?;
    wait_for("the list's head to be read", DEADLINE, || {
        Ok((browser.evaluate("held.length")? != 0).then_some(()))
    })?;
    browser.evaluate(
        "(async () => { scrollTo(0, document.documentElement.scrollHeight); \
         for (let n = 0; n < 5; n++) await new Promise(requestAnimationFrame); letGo(); })()",
    )?;
    let foot = "document.querySelector('.foot')?.innerText ?? ''";
    wait_for("more of the list", DEADLINE, || {
        let count = browser.evaluate(foot)?;
        Ok(count
            .as_str()
            .is_some_and(|count| count.starts_with("40"))
            .then_some(()))
    })?;
    // The next one brings that which was held up with it.
    world.client.http(["-X", "POST", "-d", "x", url])?;
    // To the very end, as far as the list goes on; the rows that are drawn stay few.
    wait_for("the list's end", DEADLINE * 9, || {
        browser.evaluate("scrollTo(0, document.documentElement.scrollHeight)")?;
        Ok((browser.evaluate(foot)? == "10002 in all").then_some(()))
    })?;
    let rows = browser.count("table.sagas tbody tr")?;
    anyhow::ensure!(rows < 100, "{rows} rows are drawn");
    // A stall is a task that holds up the page's thread (W3C Long Tasks): here, drawing the list anew.
    let longest = browser.evaluate(
        "(async () => { let longest = 0; const watch = new PerformanceObserver((list) => { \
         for (const task of list.getEntries()) longest = Math.max(longest, task.duration); }); \
         watch.observe({ type: 'longtask' }); \
         for (let n = 0; n < 40; n++) { scrollTo(0, n * 9000); await new Promise(requestAnimationFrame); } \
         await new Promise((done) => setTimeout(done, 50)); watch.disconnect(); return longest; })()",
    )?;
    println!("the longest task while scrolling through 10,000 sagas: {longest} ms");
    browser.look("ten-thousand")
}
