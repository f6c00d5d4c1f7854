// Triggers of sagas that are only observed: what each was answered, and beside it what its saga would have done.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact.js";
import { get } from "/assets/api.js";
import { Graph } from "/assets/graph.js";
import { MOST, Space, grow, renew, useRows, useTyped, youngest } from "/assets/rows.js";
import { Message } from "/assets/saga.js";
import { Badge, Copy, Trouble, ago, moment, span, useLoaded, useNow, word } from "/assets/ui.js";

const PAGE = 200;
/** Pages that are read at once to bring the list up to date. */
const AGAIN = 5;

/** What the service answered, in a word or two. */
function answered(one) {
  if (one.status) return String(one.status);
  return { answered: "unreadable", unanswered: "nothing" }[one.answer] ?? "not yet";
}

const isOpen = (one) => one.answer === "pending" || !(one.state || one.unrehearsed);

/** The records of that saga, or all, as many as were looked at; those that were not whole yet are looked at again. */
function useObserved(name, revision) {
  const kept = useRef({ name: null });
  const [view, set] = useState({ records: [], next: null, error: null, loaded: false });
  const read = (cursor) => get(`/api/v1/observed?${new URLSearchParams({ limit: PAGE, ...(name && { name }), ...(cursor && { cursor }) })}`);
  const keep = (store, page) => { for (const one of page.observed) store.byId.set(one.id, one); };
  const show = (store) => {
    const records = [...store.byId.values()].sort(youngest);
    for (const one of records.splice(MOST)) {
      store.byId.delete(one.id);
      store.next = records[MOST - 1].id;
    }
    set({ records, next: store.next, error: null, loaded: true });
  };
  const refresh = async (store) => {
    const oldest = [...store.byId.values()].filter(isOpen).map((one) => one.id).sort()[0];
    let page = await read();
    let known = false;
    for (let n = 1; ; n++) {
      known ||= page.observed.some((one) => store.byId.has(one.id));
      keep(store, page);
      const last = page.observed[page.observed.length - 1]?.id;
      const enough = !store.any || (known && !(oldest < last));
      if (enough || !page.next || n === AGAIN) break;
      page = await read(page.next);
    }
    // The first look, or more than could be read has come since: what is older comes as one scrolls.
    if (!store.any || (!known && page.next)) {
      const last = page.observed[page.observed.length - 1]?.id ?? "";
      for (const id of store.byId.keys()) if (id < last) store.byId.delete(id);
      store.next = page.next;
    }
    store.any = store.byId.size > 0;
  };
  useEffect(() => {
    if (kept.current.name !== name) {
      kept.current = { name, byId: new Map(), next: null, any: false, busy: false, after: null };
      set({ records: [], next: null, error: null, loaded: false });
    }
    const store = kept.current;
    renew(store, kept, set, show, () => refresh(store));
  }, [name, revision]);
  const more = () => {
    const store = kept.current;
    grow(store, kept, set, show, async () => {
      const page = await read(store.next);
      keep(store, page);
      store.next = page.next;
    });
  };
  return { ...view, more };
}

/** The list. */
export function Observed({ live }) {
  const [typed, setTyped, name] = useTyped("name");
  const search = useRef(null);
  const now = useNow();
  const { records, next, error, loaded, more } = useObserved(name.trim(), live?.observed ?? 0);
  const { box, from, to, at, above, below } = useRows(records, (one) => `#/observed/${one.id}`, search, more);
  return html`<h1>Observed</h1>
    <p class="dim">Triggers of sagas with <code>mode = "observe"</code>: the service itself has answered, no step was sent, and this is what the saga would have done.</p>
    <div class="search">
      <input ref=${search} type="search" aria-label="A saga's name" placeholder="a saga's name   ( / )" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
    </div>
    <${Trouble} error=${error} />
    <table class="sagas observed">
      <thead><tr><th scope="col">Would be</th><th scope="col">Saga</th><th scope="col">Trigger</th><th scope="col" class="n">Answered</th><th scope="col" class="n">Took</th><th scope="col" class="n">Came</th></tr></thead>
      <tbody ref=${box}>
        <${Space} high=${above} />
        ${records.slice(from, to).map((one, n) => html`<tr class=${from + n === at ? "at" : ""} key=${one.id}>
          <td>${one.state ? html`<${Badge} state=${one.state} />` : html`<span class="badge">${one.unrehearsed ? "? not known" : "· not yet"}</span>`}</td>
          <th scope="row"><a href="#/observed/${one.id}"><b>${one.name}</b> <code>${one.id}</code></a></th>
          <td class="what" title="${one.method} ${one.url}">${one.method} ${one.url}</td>
          <td class="n">${answered(one)}</td>
          <td class="n">${span(one.took_us)}</td>
          <td class="n"><time title=${moment(one.arrived)}>${ago(one.arrived, now)}</time></td>
        </tr>`)}
        <${Space} high=${below} />
      </tbody>
    </table>
    ${loaded && !records.length && !error ? html`<p class="empty">${name ? "Nothing of that saga was observed." : live?.observing ? "Nothing yet. A record comes with the next trigger." : html`No saga is only observed. One is with <code>mode = "observe"</code> in its file.`}</p>` : null}
    ${records.length ? html`<p class="foot">${records.length}${next ? " so far; further ones come as you scroll" : " in all, the newest of them: older ones make room (limits.observed)"}</p>` : null}`;
}

/** Where a step would have ended, in the words of the picture. */
const ended = ({ state, compensation }) => ({ undone: "undone", stuck: "stuck" }[compensation] ?? state);

function Sent({ rehearsal }) {
  if (!rehearsal.sent.length) return html`<p class="empty">Nothing would have been sent.</p>`;
  return html`<table class="history would">
    <thead><tr><th scope="col" class="n">Turn</th><th scope="col">Step</th><th scope="col">What</th></tr></thead>
    <tbody>${rehearsal.sent.map((one) => html`<tr>
      <td class="n">${one.wave}</td>
      <td>${one.step}${one.direction === "transaction" ? "" : html` <span class="dim">${one.direction}${one.compensation > 1 ? ` ${one.compensation}` : ""}</span>`}${one.attempt > 1 ? html` <span class="dim">attempt ${one.attempt}</span>` : null}</td>
      <td><code>${one.method} ${one.url}</code>${one.forward ? html` <span class="dim">the trigger, unchanged</span>` : html`<${Message} event=${{ ...one, kind: "sending" }} />`}</td>
    </tr>`)}</tbody>
  </table>
  ${rehearsal.left_out ? html`<p class="foot">and ${rehearsal.left_out} more that there was no room for</p>` : null}`;
}

/** One of them. */
export function ObservedPage({ id, live }) {
  const [whole, setWhole] = useState(false);
  const { value: one, error } = useLoaded((signal) => get(`/api/v1/observed/${encodeURIComponent(id)}`, signal), [id, whole ? 0 : live?.observed]);
  const { value: defined } = useLoaded((signal) => get("/api/v1/definitions", signal), [live?.reloads]);
  useEffect(() => { setWhole(Boolean(one && !isOpen(one))); }, [one?.answer, one?.state, one?.unrehearsed]);
  const crumbs = html`<p class="crumbs"><a href="#/observed">Observed</a> <span aria-hidden="true">/</span> ${one?.name ?? ""}</p>`;
  if (!one) return html`${crumbs}${error ? html`<${Trouble} error=${error} />` : html`<p class="empty">Loading…</p>`}`;
  const { rehearsal } = one;
  // What comes after what, if that is still what was rehearsed.
  const plan = defined?.definitions.find((each) => each.name === one.name && each.hash === one.definition);
  const steps = rehearsal?.steps.map((step) => ({ ...plan?.steps.find((each) => each.name === step.name), ...step, state: ended(step) }));
  const causes = rehearsal?.steps.filter((step) => step.cause || step.state === "skipped") ?? [];
  return html`${crumbs}
    <header class="saga-head">
      <h1>${one.name} <${Badge} state="observed" /></h1>
      <${Copy} text=${one.id} />
      <dl class="facts">
        <div><dt>trigger</dt><dd><code>${one.method} ${one.url}</code></dd></div>
        <div><dt>came</dt><dd><time>${moment(one.arrived)}</time></dd></div>
        <div><dt>the caller got</dt><dd>${answered(one)}${one.took_us == null ? "" : ` after ${span(one.took_us)}`}, from the service itself</dd></div>
        ${rehearsal?.reply ? html`<div><dt>the saga's caller would have got</dt><dd>${rehearsal.reply.status}</dd></div>` : null}
        ${rehearsal ? html`<div><dt>the saga would be</dt><dd><${Badge} state=${rehearsal.state} /></dd></div>` : null}
      </dl>
      <${Message} event=${{ ...one, kind: "trigger" }} />
    </header>
    <${Trouble} error=${error} />
    ${rehearsal ? null : html`<section class="panel" aria-labelledby="unknown"><h2 id="unknown">What the saga would have done is not known</h2><p>${one.unrehearsed ?? "It is being rehearsed."}</p></section>`}
    ${rehearsal ? html`
      <section aria-labelledby="picture"><h2 id="picture">Steps <span class="dim">had every service agreed to everything</span></h2>
        <${Graph} steps=${steps} label="Where the steps of ${one.name} would have ended" />
        ${causes.length ? html`<ul>${causes.map((step) => html`<li><b>${step.name}</b>: ${word(step.state)}, ${step.cause ?? "since its when does not hold"}</li>`)}</ul>` : null}
      </section>
      <section aria-labelledby="would"><h2 id="would">What would have been sent <span class="dim">the same turn: at once</span></h2>
        <${Sent} rehearsal=${rehearsal} />
      </section>
      ${rehearsal.reply?.body ? html`<section aria-labelledby="reply"><h2 id="reply">What its caller would have got <span class="dim">${rehearsal.reply.status}</span></h2><pre>${rehearsal.reply.body}</pre></section>` : null}` : null}`;
}
