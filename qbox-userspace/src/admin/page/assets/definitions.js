// The sagas that are loaded, each with its trigger and its graph.

import { html } from "/assets/vendor/preact.js";
import { get } from "/assets/api.js";
import { Graph } from "/assets/graph.js";
import { Trouble, moment, useLoaded } from "/assets/ui.js";

function url({ host, port, path }) {
  const parts = path.map((part) => part.literal ?? `{${part.capture}}`).join("/");
  return `http://${host}${port === 80 ? "" : `:${port}`}/${parts}`;
}

/** The view. */
export function Definitions({ live }) {
  const { value, error } = useLoaded((signal) => get("/api/v1/definitions", signal), [live?.reloads]);
  return html`<h1>Definitions</h1>
    <${Trouble} error=${error} />
    ${value?.error ? html`<section class="panel loud" aria-labelledby="unfit"><h2 id="unfit">The files as they are now are not in force</h2><p>What is below still is, since ${moment(value.loaded)}.</p><pre>${value.error.report}</pre></section>` : null}
    ${value?.needs_restart?.length ? html`<p class="trouble">Only a restart brings into force what has changed in qbox.toml: ${value.needs_restart.join(", ")}</p>` : null}
    ${value && !value.definitions.length ? html`<p class="empty">No saga is defined: everything passes through.</p>` : null}
    <div class="cards">
      ${value?.definitions.map((each) => html`<section class="card" aria-labelledby="d-${each.name}" key=${each.name}>
        <h2 id="d-${each.name}">${each.name} ${each.mode === "observe" ? html`<span class="badge s-observed">observe</span>` : null}</h2>
        <p><code>${each.trigger.method ?? "any method"} ${url(each.trigger)}</code></p>
        <${Graph} steps=${each.steps} label="The steps of ${each.name}" />
        <p class="dim"><code title=${each.hash}>${each.hash.slice(0, 12)}</code>${each.file ? ` · ${each.file}` : ""} · since ${moment(each.since)} · ${each.mode === "observe" ? html`<a href="#/observed?name=${encodeURIComponent(each.name)}">its observed triggers</a>` : html`<a href="#/?name=${encodeURIComponent(each.name)}">its sagas</a>`}</p>
      </section>`)}
    </div>`;
}
