// One saga: why it stands where it stands, its picture, where its time went, all that happened, and what a person can do.

import { html, useEffect, useState } from "/assets/vendor/preact.js";
import { decide, get } from "/assets/api.js";
import { Graph } from "/assets/graph.js";
import { Badge, Copy, GOING, Modal, Trouble, ago, moment, span, useLoaded, useNow } from "/assets/ui.js";
import { Waterfall } from "/assets/waterfall.js";

const ENDED = ["committed", "compensated"];

/** What can be decided: what it does, in a sentence, and when it is of use. */
const ACTIONS = {
  retry: { label: "Retry", does: "Sends what is stuck again, at once, under the same Idempotency-Key. Choose it when the service is well again.", when: (saga) => saga.state === "stuck" || saga.state === "compensating", steps: true },
  skip: { label: "Skip", does: "Says that this step was settled by hand. Nothing is sent for it any more: Qbox believes you.", when: (saga) => saga.state === "stuck", steps: true, needsStep: true },
  resolve: { label: "Resolve", does: "Says that all of this saga was settled by hand. It ends, and nothing more is sent.", when: (saga) => saga.state === "stuck" || saga.state === "compensating" },
  compensate: { label: "Compensate", does: "Turns the saga back: no further step begins, and what may have happened is undone.", when: (saga) => saga.state === "running" },
  pause: { label: "Pause", does: "Sends nothing new of this saga, forward or back, until it is resumed.", when: (saga) => !saga.paused && (GOING.includes(saga.state) || saga.state === "stuck") },
  resume: { label: "Resume", does: "Goes on where the pause has stopped it.", when: (saga) => saga.paused },
};

function Decide({ saga, action, step: given, onDone, onClose }) {
  const { label, does, steps, needsStep } = ACTIONS[action];
  const stuck = saga.stuck.map((each) => each.step);
  const [step, setStep] = useState(given ?? (needsStep ? stuck[0] ?? "" : ""));
  const [why, setWhy] = useState("");
  const [who, setWho] = useState(() => { try { return localStorage.getItem("qbox-who") ?? ""; } catch { return ""; } });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const body = { why: why.trim() };
      if (who.trim()) body.who = who.trim();
      if (steps && step) body.step = step;
      await decide(saga.id, action, body);
      try { localStorage.setItem("qbox-who", who.trim()); } catch { /* asked again next time */ }
      onDone(label);
    } catch (failed) { setError(failed); setBusy(false); }
  };
  return html`<${Modal} title="${label}: ${saga.name}" onClose=${onClose}>
    <form onSubmit=${submit}>
      <p>${does}</p>
      ${steps && stuck.length ? html`<label>Step
        <select value=${step} onChange=${(event) => setStep(event.target.value)}>
          ${needsStep ? null : html`<option value="">all that are stuck</option>`}
          ${stuck.map((name) => html`<option value=${name}>${name}</option>`)}
        </select></label>` : null}
      <label>Why <span class="dim">(stands in the saga's history)</span>
        <input required maxlength="500" value=${why} onInput=${(event) => setWhy(event.target.value)} placeholder="hotel is up again, ticket 4711" /></label>
      <label>Who <span class="dim">(a note among colleagues)</span>
        <input maxlength="100" value=${who} onInput=${(event) => setWho(event.target.value)} placeholder="your name" /></label>
      <${Trouble} error=${error} />
      <div class="buttons">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button type="submit" class="strong" disabled=${busy || !why.trim()}>${label}</button>
      </div>
    </form>
  </${Modal}>`;
}

/** What the last message of a stuck step was, and what came back. */
function lastOf(saga, step) {
  const of = saga.events.filter((event) => event.step === step);
  const ended = of.filter((event) => event.kind === "ended").pop();
  if (!ended) return null;
  const same = (event) => event.kind === "sending" && event.direction === ended.direction && event.compensation === ended.compensation && event.attempt === ended.attempt;
  const sent = of.filter(same).pop() ?? of.filter((event) => event.kind === "sending" && event.direction === ended.direction && event.url).pop();
  return { ended, sent };
}

function Why({ saga, now, onAct }) {
  if (saga.state === "halted") {
    return html`<section class="panel loud" aria-labelledby="why"><h2 id="why">Why is it halted?</h2>
      <p>${saga.cause}</p><p class="dim">The journal failed this saga, so no decision can be kept for it either. Mend that and restart Qbox, which takes the saga up again.</p></section>`;
  }
  if (!saga.stuck.length) return null;
  return html`<section class="panel loud" aria-labelledby="why">
    <h2 id="why">Why is it stuck?</h2>
    ${saga.stuck.map((stuck) => {
      const last = lastOf(saga, stuck.step);
      return html`<div class="stuck-step">
        <p><b>${stuck.step}</b> can't be finished since ${ago(stuck.since, now)} (<time>${moment(stuck.since)}</time>): <b>${stuck.cause}</b></p>
        ${last ? html`<p class="dim">${last.sent?.url ? html`The last ${last.ended.direction} was <code>${last.sent.method} ${last.sent.url}</code>` : `The last ${last.ended.direction}`}${stuck.last ? `: ${stuck.last}` : ""}</p>` : null}
        ${last?.ended.body ? html`<pre>${last.ended.body}</pre>` : null}
        <div class="buttons">
          <button type="button" class="strong" onClick=${() => onAct("retry", stuck.step)}>Retry ${stuck.step}</button>
          <button type="button" onClick=${() => onAct("skip", stuck.step)}>Skip: settled by hand</button>
        </div>
      </div>`;
    })}
  </section>`;
}

/** Why it has not ended although nothing of it is left to do. */
function Waits({ saga }) {
  const { listening } = saga;
  if (listening) {
    return html`<section class="panel" aria-labelledby="waits"><h2 id="waits">Why has it not ended?</h2>
      <p>All is undone, and its caller is answered. It only waits for a late answer of <b>${listening.steps.join(", ")}</b>, until <time>${moment(listening.until)}</time> at the most (<code>linger</code> of <code>[upstream]</code>): a success that still comes is undone too.</p></section>`;
  }
  if (!ENDED.includes(saga.state) || saga.ended) return null;
  return html`<section class="panel" aria-labelledby="waits"><h2 id="waits">Why has it not ended?</h2><p>An attempt is still in flight. Whatever it is answered, the outcome stays.</p></section>`;
}

function History({ saga, chosen }) {
  const shown = chosen ? saga.events.filter((event) => event.step === chosen) : saga.events;
  return html`<table class="history">
    <thead><tr><th scope="col" class="n">After</th><th scope="col" class="n">Took</th><th scope="col">What</th></tr></thead>
    <tbody>
      ${shown.map((event) => html`<tr class="e-${event.kind} c-${event.class ?? "none"}">
        <td class="n" title=${moment(event.at)}>+${span(event.offset_us)}</td>
        <td class="n">${event.took_us == null ? "" : span(event.took_us)}</td>
        <td><span>${event.text}</span>${event.who ? html` <span class="dim">by ${event.who}</span>` : null}<${Message} event=${event} /></td>
      </tr>`)}
    </tbody>
  </table>`;
}

/** A request or an answer, as far as it may be shown. */
export function Message({ event }) {
  if (!event.headers?.length && !event.body) return null;
  const more = event.body_bytes ? html`<span class="dim"> … ${event.body_bytes} bytes in all</span>` : null;
  const open = event.kind === "ended" && event.class !== "applied";
  return html`<details open=${open}><summary>${{ ended: "answer", trigger: "the trigger" }[event.kind] ?? "request"}</summary>
    ${event.headers?.length ? html`<pre>${event.headers.map(([name, value]) => `${name}: ${value}`).join("\n")}</pre>` : null}
    ${event.body ? html`<pre>${event.body}</pre>` : null}${more}
  </details>`;
}

/** The view. */
export function SagaPage({ id, live }) {
  const [kick, setKick] = useState(0);
  const [asking, setAsking] = useState(null);
  const [done, setDone] = useState(null);
  const [chosen, setChosen] = useState(null);
  const [settled, setSettled] = useState(false);
  // One that has ended changes no more, whatever others do.
  const { value: saga, error } = useLoaded((signal) => get(`/api/v1/sagas/${encodeURIComponent(id)}`, signal), [id, kick, settled ? 0 : live?.revision]);
  const now = useNow(saga && GOING.includes(saga.state) ? 200 : 1000);
  useEffect(() => { setSettled(Boolean(saga && ENDED.includes(saga.state) && saga.replied && !saga.parent)); }, [saga?.state, saga?.replied]);
  useEffect(() => { setChosen(null); setSettled(false); setDone(null); }, [id]);
  if (!saga) {
    return html`<p class="crumbs"><a href="#/">Sagas</a></p>${error ? html`<${Trouble} error=${error} />` : html`<p class="empty">Loading…</p>`}`;
  }
  const last = saga.events[saga.events.length - 1];
  const until = saga.ended ? saga.ended - saga.arrived : GOING.includes(saga.state) ? Math.max(now - saga.arrived, last?.offset_us ?? 0) : last?.offset_us ?? 0;
  const began = saga.events.find((event) => event.kind === "began");
  const can = Object.entries(ACTIONS).filter(([, action]) => action.when(saga));
  const act = (action, step) => setAsking({ action, step });
  return html`
    <p class="crumbs"><a href="#/">Sagas</a> <span aria-hidden="true">/</span> ${saga.name}</p>
    <header class="saga-head">
      <h1>${saga.name} <${Badge} state=${saga.state} paused=${saga.paused} /></h1>
      <${Copy} text=${saga.id} />
      <dl class="facts">
        ${began?.url ? html`<div><dt>trigger</dt><dd><code>${began.method} ${began.url}</code></dd></div>` : null}
        <div><dt>came</dt><dd><time>${moment(saga.arrived)}</time></dd></div>
        <div><dt>${saga.ended ? "took" : "so far"}</dt><dd>${span(until)}</dd></div>
        <div><dt>caller</dt><dd>${saga.replied ? `answered ${saga.replied.status} after ${span(saga.replied.at - saga.arrived)}` : "waits"}</dd></div>
        ${saga.cause ? html`<div><dt>cause</dt><dd>${saga.cause.replaceAll("`", "")}</dd></div>` : null}
        ${saga.parent ? html`<div><dt>part of</dt><dd><a href="#/saga/${saga.parent.id ?? saga.parent.saga}"><code>${saga.parent.id ?? saga.parent.saga}</code></a> ${saga.parent.step ? `, step ${saga.parent.step}` : ""}</dd></div>` : null}
        ${saga.children?.length ? html`<div><dt>nested</dt><dd>${saga.children.map((child) => html`<a href="#/saga/${child.id ?? child.saga}"><code>${child.id ?? child.saga}</code></a> `)}</dd></div>` : null}
      </dl>
      ${can.length ? html`<div class="buttons" role="group" aria-label="Decide">${can.map(([name, action]) => html`<button type="button" title=${action.does} onClick=${() => act(name)}>${action.label}</button>`)}</div>` : null}
    </header>
    <${Trouble} error=${error} />
    <p role="status" class=${done ? "done" : "unseen"}>${done ? `${done}: recorded.` : ""}</p>
    <${Why} saga=${saga} now=${now} onAct=${act} />
    <${Waits} saga=${saga} />
    <section aria-labelledby="picture"><h2 id="picture">Steps</h2>
      <${Graph} steps=${saga.steps} label="The steps of ${saga.name}" chosen=${chosen} onChoose=${setChosen} />
    </section>
    <section aria-labelledby="time"><h2 id="time">Where the time went</h2>
      <${Waterfall} saga=${saga} until=${until} chosen=${chosen} onChoose=${setChosen} />
    </section>
    <section aria-labelledby="history"><h2 id="history">What happened${chosen ? html` <span class="dim">to ${chosen}</span> <button type="button" class="quiet" onClick=${() => setChosen(null)}>show all</button>` : null}</h2>
      <${History} saga=${saga} chosen=${chosen} />
    </section>
    ${asking ? html`<${Decide} saga=${saga} ...${asking} onClose=${() => setAsking(null)} onDone=${(label) => { setAsking(null); setDone(label); setKick((n) => n + 1); }} />` : null}`;
}
