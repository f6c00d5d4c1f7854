// Where a saga's time went: attempts, waits and compensations of each step on one time axis.

import { html } from "/assets/vendor/preact.js";
import { span } from "/assets/ui.js";

/** The bars of a history: one for each attempt, and one for each wait before the next. */
export function bars(saga, until) {
  const open = new Map();
  const found = [];
  const key = (event) => [event.step, event.direction, event.compensation ?? 0, event.attempt].join("\u0000");
  for (const event of saga.events) {
    if (event.kind === "sending") {
      const bar = { step: event.step, kind: event.direction, from: event.offset_us, to: null, attempt: event.attempt, url: event.url, method: event.method };
      open.set(key(event), bar);
      found.push(bar);
    } else if (event.kind === "ended") {
      const bar = open.get(key(event));
      if (bar) {
        bar.to = event.offset_us;
        bar.class = event.class;
        bar.said = event.end === "answered" ? `answered ${event.status}` : event.cause ?? event.end?.replace("_", " ");
      }
    } else if (event.kind === "retry_at") {
      const to = event.offset_us + Math.max(0, event.due - event.at);
      found.push({ step: event.step, kind: "wait", from: event.offset_us, to: Math.min(to, Math.max(until, event.offset_us)), said: `next attempt after ${span(event.due - event.at)}` });
    }
  }
  for (const bar of found) if (bar.to == null) { bar.to = Math.max(until, bar.from); bar.open = true; }
  return found;
}

/** Round steps for the axis: at most `most` of them. */
function ticks(end, most) {
  const rough = end / most;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = 0; at <= end; at += step) found.push(at);
  return found;
}

/** The picture. `until` is how long the saga has run so far, in microseconds. */
export function Waterfall({ saga, until, chosen, onChoose }) {
  const all = bars(saga, until);
  const end = Math.max(1, until, ...all.map((bar) => bar.to));
  const at = (us) => `${(100 * us) / end}%`;
  const wide = (bar) => `max(3px, ${(100 * (bar.to - bar.from)) / end}%)`;
  const marks = saga.events.filter((event) => ["compensating", "replied", "committed", "compensated", "recovered", "decided", "failed"].includes(event.kind));
  const scale = ticks(end, 6);
  const said = (bar) => {
    const what = bar.kind === "wait" ? "waits" : `${bar.kind} #${bar.attempt}${bar.method ? ` ${bar.method} ${bar.url}` : ""}`;
    return `${bar.step}: ${what}, ${span(bar.to - bar.from)}${bar.open ? " so far" : ""}${bar.said ? `, ${bar.said}` : ""}`;
  };
  return html`<figure class="waterfall" aria-label="Where the time went">
    <div class="rows">
      ${saga.steps.map((step) => html`<div class="row ${chosen === step.name ? "chosen" : ""}" key=${step.name}>
        <button type="button" class="label quiet" title=${step.name} aria-pressed=${chosen === step.name} onClick=${() => onChoose(chosen === step.name ? null : step.name)}>${step.name}</button>
        <div class="track">
          ${scale.map((tick) => html`<i class="tick" style=${{ left: at(tick) }}></i>`)}
          ${all.filter((bar) => bar.step === step.name).map((bar) => html`<span class="bar ${bar.kind} c-${bar.class ?? "none"} ${bar.open ? "open" : ""}" role="img" aria-label=${said(bar)} title=${said(bar)} style=${{ left: at(bar.from), width: wide(bar) }}></span>`)}
        </div>
      </div>`)}
      <div class="row marks">
        <span class="label">saga</span>
        <div class="track">
          ${marks.map((event) => html`<span class="mark m-${event.kind}" role="img" style=${{ left: at(event.offset_us) }} title=${`+${span(event.offset_us)} ${event.text}`} aria-label=${event.text}></span>`)}
        </div>
      </div>
      <div class="row axis" aria-hidden="true">
        <span class="label"></span>
        <div class="track">${scale.map((tick) => html`<span style=${{ left: at(tick) }}>${span(tick)}</span>`)}</div>
      </div>
    </div>
    <figcaption>
      <span><i class="bar transaction c-applied"></i> transaction</span>
      <span><i class="bar transaction c-unknown"></i> unknown</span>
      <span><i class="bar transaction c-not_applied"></i> not applied</span>
      <span><i class="bar probe c-applied"></i> probe</span>
      <span><i class="bar wait"></i> waits</span>
      <span><i class="bar compensation c-applied"></i> compensation</span>
      <span><i class="bar compensation c-unknown"></i> not undone</span>
    </figcaption>
  </figure>`;
}
