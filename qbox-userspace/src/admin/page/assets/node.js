// The node: is it ready, what is captured, how are journal, capture and the calls to services.

import { html } from "/assets/vendor/preact.js";
import { get } from "/assets/api.js";
import { Trouble, useLoaded } from "/assets/ui.js";

const plain = (value) => (value == null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

function Facts({ of }) {
  return html`<dl class="facts">${of.map(([name, value]) => html`<div><dt>${name}</dt><dd>${plain(value)}</dd></div>`)}</dl>`;
}

/** The view. */
export function Node({ live }) {
  const second = Math.floor((live?.at ?? 0) / 2e6);
  const { value: status, error } = useLoaded((signal) => get("/api/v1/status", signal), [second]);
  const { value: pods, error: noPods } = useLoaded((signal) => get("/api/v1/pods", signal), [live?.pods, live?.uncaptured, Math.floor(second / 5)]);
  if (!status) return html`<h1>Node</h1><${Trouble} error=${error} />`;
  const { capture, sagas, calls, journal } = status;
  return html`<h1>Node</h1>
    <${Trouble} error=${error ?? noPods} />
    <section class=${status.amiss.length ? "panel loud" : "panel"} aria-labelledby="ready"><h2 id="ready">${status.amiss.length ? "Not ready" : "Ready"}</h2>
      ${status.amiss.length ? html`<ul>${status.amiss.map((what) => html`<li>${what}</li>`)}</ul>` : html`<p>Triggers are taken.</p>`}
    </section>
    <div class="cards">
      <section class="card" aria-labelledby="capture"><h2 id="capture">Capture</h2>
        <${Facts} of=${[["mode", capture.mode], ...Object.entries(capture).filter(([key]) => key !== "mode"), ["pods captured", status.pods], ["not captured", status.uncaptured]]} />
      </section>
      <section class="card" aria-labelledby="journal"><h2 id="journal">Journal</h2>
        <${Facts} of=${[["health", sagas.broken ? `failed: ${sagas.broken}` : "well"], ...Object.entries(journal ?? {}).map(([key, value]) => [key.replaceAll("_", " "), value])]} />
      </section>
      <section class="card" aria-labelledby="calls"><h2 id="calls">Calls to services</h2>
        <${Facts} of=${[["in flight", calls.in_flight], ["waiting", calls.waiting], ["held back", calls.held], ["circuits opened", calls.opened]]} />
        ${calls.open.length ? html`<p class="trouble">Can't be connected to: ${calls.open.map((each) => (typeof each === "object" ? each.service ?? each.name ?? JSON.stringify(each) : each)).join(", ")}</p>` : null}
      </section>
      <section class="card" aria-labelledby="qbox"><h2 id="qbox">Qbox</h2>
        <${Facts} of=${[["version", status.version], ["process", status.pid], ["admin", status.admin], ["sagas in flight", `${sagas.in_flight} of ${sagas.capacity}`], ["definitions", status.definitions]]} />
      </section>
    </div>
    <section aria-labelledby="pods"><h2 id="pods">Pods</h2>
      ${pods && !pods.pods.length && !pods.uncaptured.length ? html`<p class="empty">${capture.mode === "explicit" ? "Explicit mode: clients send to Qbox themselves, and nothing is captured." : "No pod yet: no process runs below the cgroup."}</p>` : html`<table class="pods">
        <thead><tr><th scope="col">Pod</th><th scope="col">Captured</th><th scope="col">Cgroup</th><th scope="col" class="n">Network namespace</th></tr></thead>
        <tbody>${[...(pods?.uncaptured ?? []), ...(pods?.pods ?? [])].map((pod) => html`<tr>
          <th scope="row">${pod.name}</th><td>${pod.error ? html`<span class="badge s-stuck">! no</span> ${pod.error}` : html`<span class="badge s-committed">✓ yes</span>`}</td><td><code>${pod.cgroup}</code></td><td class="n">${pod.netns}</td></tr>`)}</tbody>
      </table>`}
    </section>`;
}
