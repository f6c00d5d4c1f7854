// The node: is it ready, what is captured, how are journal, capture and the calls to services.

import { html } from "/assets/vendor/preact.js";
import { get } from "/assets/api.js";
import { Trouble, span, useLoaded } from "/assets/ui.js";

const plain = (value) => (value == null ? "–" : String(value));

/** With a unit that helps. */
function bytes(count) {
  if (count == null) return null;
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return power ? `${(count / 1024 ** power).toFixed(1)} ${["KiB", "MiB", "GiB", "TiB"][power - 1]}` : `${count} B`;
}

function Facts({ of }) {
  return html`<dl class="facts">${of.map(([name, value]) => html`<div><dt>${name}</dt><dd>${plain(value)}</dd></div>`)}</dl>`;
}

/** Each pod with whether it is captured, and why. */
function rows(pods) {
  const of = (list, badge, why) => (pods?.[list] ?? []).map((pod) => [pod, badge, pod[why]]);
  return [
    ...of("uncaptured", html`<span class="badge s-stuck">! no</span>`, "error"),
    ...of("pods", html`<span class="badge s-committed">✓ yes</span>`, "why"),
    ...of("left", html`<span class="badge">no</span>`, "why"),
  ];
}

/** The view. */
export function Node({ live }) {
  const second = Math.floor((live?.at ?? 0) / 2e6);
  const { value: status, error } = useLoaded((signal) => get("/api/v1/status", signal), [second]);
  const { value: pods, error: noPods } = useLoaded((signal) => get("/api/v1/pods", signal), [live?.pods, live?.uncaptured, Math.floor(second / 5)]);
  if (!status) return html`<h1>Node</h1><${Trouble} error=${error} />`;
  const { capture, sagas, calls, journal, standing } = status;
  return html`<h1>Node</h1>
    <${Trouble} error=${error ?? noPods} />
    <section class=${status.amiss.length ? "panel loud" : "panel"} aria-labelledby="ready"><h2 id="ready">${status.amiss.length ? "Not ready" : "Ready"}</h2>
      ${status.amiss.length ? html`<ul>${status.amiss.map((what) => html`<li>${what}</li>`)}</ul>` : html`<p>Triggers are taken.</p>`}
      ${status.doubts.length ? html`<p>What may be amiss all the same:</p><ul>${status.doubts.map((what) => html`<li>${what}</li>`)}</ul>` : null}
    </section>
    <div class="cards">
      <section class="card" aria-labelledby="capture"><h2 id="capture">Capture</h2>
        ${capture.mode === "ebpf"
          ? html`<${Facts} of=${[["below", capture.cgroups.join(", ")], ["listeners' port", capture.port], ["pods captured", status.pods], ["not captured", status.uncaptured], ["not enrolled", status.left], ["last looked", status.checked == null ? "not yet" : `${status.checked} s ago`]]} />`
          : html`<${Facts} of=${[["explicit mode, on", capture.listen]]} />`}
        ${capture.others?.length ? html`<h3>Programs of others on the same hooks</h3><ul>${capture.others.map((other) => html`<li>${other.program} (id ${other.id}) ${other.first ? "before" : "after"} Qbox's ${other.hook}, on <code>${other.cgroup}</code></li>`)}</ul>` : null}
        ${status.maps.length ? html`<table class="maps"><thead><tr><th scope="col">eBPF map</th><th scope="col" class="n">Holds</th><th scope="col" class="n">Of</th><th scope="col">Full</th></tr></thead>
          <tbody>${status.maps.map(({ map, entries, capacity }) => html`<tr><th scope="row">${map}</th><td class="n">${map === "events" ? bytes(entries) : entries}</td><td class="n">${map === "events" ? bytes(capacity) : capacity}</td><td><meter min="0" max=${capacity} high=${0.8 * capacity} value=${entries} aria-label="${map}: ${entries} of ${capacity}"></meter></td></tr>`)}</tbody></table>` : null}
      </section>
      ${status.kubernetes ? html`<section class="card" aria-labelledby="kubernetes"><h2 id="kubernetes">Kubernetes</h2>
        <${Facts} of=${[["API", status.kubernetes.away == null ? "answers" : `has not answered for ${status.kubernetes.away} s`], ...["node", "enroll", "pods", "enrolled"].map((key) => [key, status.kubernetes[key]])]} />
        ${status.kubernetes.error ? html`<p class="trouble">${status.kubernetes.error}</p>` : null}
      </section>` : null}
      <section class="card" aria-labelledby="journal"><h2 id="journal">Journal</h2>
        <${Facts} of=${[["health", sagas.broken ? `failed: ${sagas.broken}` : "well"], ["on disk", bytes(journal.size)], ["waits to be written", bytes(journal.queued)], ["events", journal.events], ["commits", journal.syncs], ["a commit takes", journal.syncs ? span(journal.commit_us) : null]]} />
      </section>
      <section class="card" aria-labelledby="calls"><h2 id="calls">Calls to services</h2>
        <${Facts} of=${[["in flight", calls.in_flight], ["waiting", calls.waiting], ["listened to beyond their time", calls.lingering], ["held back", calls.held], ["unheard", calls.unheard], ["circuits opened", calls.opened]]} />
        ${calls.open.map((each) => html`<p class="trouble">Can't be connected to for ${each.open} s: <b>${each.upstream}</b>, ${each.cause}</p>`)}
      </section>
      <section class="card" aria-labelledby="qbox"><h2 id="qbox">Qbox</h2>
        <${Facts} of=${[["version", status.version], ["process", status.pid], ["admin", status.admin], ["sagas in flight", `${sagas.in_flight} of ${sagas.capacity}`], ["paused", standing.paused], ["only wait for a late answer", standing.listening], ["stuck the longest", standing.oldest_stuck ? span(standing.oldest_stuck * 1e6) : null], ["running the longest", standing.oldest_running ? span(standing.oldest_running * 1e6) : null], ["definitions", status.definitions]]} />
      </section>
    </div>
    <section aria-labelledby="pods"><h2 id="pods">Pods</h2>
      ${pods && !pods.pods.length && !pods.uncaptured.length && !pods.left.length ? html`<p class="empty">${capture.mode === "explicit" ? "Explicit mode: clients send to Qbox themselves, and nothing is captured." : "No pod yet: no process runs below the cgroup."}</p>` : html`<table class="pods">
        <thead><tr><th scope="col">Pod</th><th scope="col">Captured</th><th scope="col">Cgroup</th><th scope="col" class="n">Network namespace</th></tr></thead>
        <tbody>${rows(pods).map(([pod, badge, why]) => html`<tr>
          <th scope="row">${pod.name}</th><td>${badge} ${why}${(pod.before ?? []).map((each) => html` <span class="badge s-compensating">? after ${each.program} on ${each.hook}</span>`)}</td><td><code>${pod.cgroup}</code></td><td class="n">${pod.netns}</td></tr>`)}</tbody>
      </table>`}
    </section>`;
}
