// The list of sagas: those that need a person first, then all, the youngest first. Only the rows in sight are drawn.

import { html, useEffect, useMemo, useRef, useState } from "/assets/vendor/preact.js";
import { get } from "/assets/api.js";
import { Rates } from "/assets/rates.js";
import { Space, grow, renew, useRows, useTyped, youngest } from "/assets/rows.js";
import { Badge, GOING, Trouble, ago, moment, span, useLoaded, useNow, word } from "/assets/ui.js";

const PAGE = 200;
/** Pages that are read at once to close a gap at the list's head. */
const GAP = 5;

const SHOWN = ["running", "compensating", "stuck", "halted", "waiting", "committed", "compensated"];

/** What is typed into the search field: an id, or words like `name:book-trip step:hotel upstream:hotel.svc older:10m`. */
export function parse(text) {
  const asked = {};
  const wrong = [];
  let id = null;
  const keys = { name: "name", step: "step", upstream: "upstream", older: "older_than", younger: "younger_than" };
  for (const part of text.trim().split(/\s+/).filter(Boolean)) {
    const colon = part.indexOf(":");
    if (colon > 0) {
      const key = keys[part.slice(0, colon).toLowerCase()];
      if (key && part.length > colon + 1) asked[key] = part.slice(colon + 1);
      else wrong.push(part);
    } else if (/^[0-9a-f]{8}-[0-9a-f-]{10,}$/i.test(part)) id = part.toLowerCase();
    else asked.name = part;
  }
  return { asked, id, wrong };
}

function query(states, asked, more) {
  const parameters = new URLSearchParams({ ...asked, ...more });
  if (states.size) parameters.set("state", [...states].join(","));
  return `/api/v1/sagas?${parameters}`;
}

/** The sagas that match, as many as were looked at, kept up to date. */
function useSagas(states, asked, revision) {
  const asks = JSON.stringify([[...states].sort(), asked]);
  const kept = useRef({ asks: null, byId: new Map(), next: null, busy: false, after: null, sight: [0, 0] });
  const [view, set] = useState({ sagas: [], next: null, error: null, loaded: false });
  const show = (store) => {
    const sagas = [...store.byId.values()].sort(youngest);
    store.list = sagas;
    set({ sagas, next: store.next, error: null, loaded: true });
  };
  const refresh = async (store) => {
    let page = await get(query(states, asked, { limit: PAGE }));
    if (kept.current !== store) return;
    let fresh = page.sagas;
    // The head, back to what is known.
    for (let n = 1; store.list?.length && page.next && n < GAP && !page.sagas.some((saga) => store.byId.has(saga.id)); n++) {
      page = await get(query(states, asked, { limit: PAGE, cursor: page.next }));
      fresh = fresh.concat(page.sagas);
    }
    const joined = !store.list?.length || page.sagas.some((saga) => store.byId.has(saga.id)) || !page.next;
    if (!joined || !store.list?.length) { store.byId.clear(); store.next = page.next; }
    // What should be in that stretch and is not has left the list.
    const last = fresh[fresh.length - 1];
    if (joined && last) for (const id of store.byId.keys()) if (id >= last.id) store.byId.delete(id);
    if (joined && !page.next && !fresh.length) store.byId.clear();
    for (const saga of fresh) store.byId.set(saga.id, saga);
    // And what is in sight further down.
    const [from, to] = store.sight;
    const stale = (store.list ?? []).slice(from, to).filter((saga) => last && saga.id < last.id && !saga.ended);
    if (stale.length) {
      const before = store.list[from - 1] ?? last;
      const seen = await get(query(states, asked, { limit: Math.min(1000, to - from), cursor: before.id }));
      for (const saga of stale) store.byId.delete(saga.id);
      for (const saga of seen.sagas) store.byId.set(saga.id, saga);
    }
  };
  useEffect(() => {
    if (kept.current.asks !== asks) {
      kept.current = { asks, byId: new Map(), next: null, busy: false, after: null, sight: [0, 0], list: [] };
      set({ sagas: [], next: null, error: null, loaded: false });
    }
    const store = kept.current;
    renew(store, kept, set, show, () => refresh(store));
  }, [asks, revision]);
  const more = () => {
    const store = kept.current;
    grow(store, kept, set, show, async () => {
      const page = await get(query(states, asked, { limit: PAGE, cursor: store.next }));
      for (const saga of page.sagas) store.byId.set(saga.id, saga);
      store.next = page.next;
    });
  };
  return { ...view, more, sight: (from, to) => { kept.current.sight = [from, to]; } };
}

/** Those that only a person can finish, before all others. */
function NeedYou({ revision }) {
  const { value, error } = useLoaded((signal) => get("/api/v1/sagas?state=stuck,halted&limit=50", signal), [revision]);
  const now = useNow(5000);
  if (error) return html`<${Trouble} error=${error} />`;
  if (!value?.sagas.length) return null;
  return html`<section class="need" aria-labelledby="need">
    <h2 id="need">Need a person <span class="count">${value.sagas.length}${value.next ? "+" : ""}</span></h2>
    <ul>
      ${value.sagas.map((saga) => html`<li key=${saga.id}>
        <a href="#/saga/${saga.id}">
          <${Badge} state=${saga.state} paused=${saga.paused} />
          <b>${saga.name}</b>
          <span class="why">${saga.stuck.length ? saga.stuck.map((stuck) => `${stuck.step}: ${stuck.cause}`).join("; ") : saga.cause}</span>
          <time>${ago(saga.stuck[0]?.since ?? saga.arrived, now)}</time>
        </a>
      </li>`)}
    </ul>
  </section>`;
}

/** The first page that one sees. */
export function Sagas({ live, rates }) {
  const [states, setStates] = useState(new Set());
  const [typed, setTyped, text] = useTyped("name");
  const search = useRef(null);
  const now = useNow();
  const { asked, id, wrong } = useMemo(() => parse(text), [text]);
  useEffect(() => { if (id) location.hash = `#/saga/${id}`; }, [id]);
  const revision = live?.revision ?? 0;
  const { sagas, next, error, loaded, more, sight } = useSagas(states, asked, revision);
  const { box, from, to, at, above, below } = useRows(sagas, (saga) => `#/saga/${saga.id}`, search, more);
  useEffect(() => sight(from, to), [from, to, sagas]);
  const toggle = (state) => setStates((old) => { const fresh = new Set(old); if (!fresh.delete(state)) fresh.add(state); return fresh; });
  const counts = live?.states ?? {};
  return html`
    <h1 class="unseen">Sagas</h1>
    <${NeedYou} revision=${revision} />
    <section class="now" aria-label="Now">
      <dl class="tiles">
        <div><dt>in flight</dt><dd>${live?.in_flight ?? "–"}<small> of ${live?.capacity ?? "–"}</small></dd></div>
        <div class="s-running"><dt>running</dt><dd>${counts.running ?? "–"}</dd></div>
        <div class="s-compensating"><dt>compensating</dt><dd>${counts.compensating ?? "–"}</dd></div>
        <div class=${counts.stuck ? "s-stuck loud" : "s-stuck"}><dt>stuck</dt><dd>${counts.stuck ?? "–"}</dd></div>
        <div class="s-committed"><dt>committed</dt><dd>${live?.totals?.committed ?? "–"}<small> since the start</small></dd></div>
        <div class="s-compensated"><dt>compensated</dt><dd>${live?.totals?.compensated ?? "–"}<small> since the start</small></dd></div>
      </dl>
      <${Rates} rates=${rates} />
    </section>
    <section aria-labelledby="all">
      <div class="bar-of-tools">
        <h2 id="all">Sagas</h2>
        <input ref=${search} type="search" aria-label="Search: a saga's name or id, step:, upstream:, older:, younger:" placeholder="name or id, step:hotel, upstream:host, older:10m   ( / )" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
        <div class="chips" role="group" aria-label="Only these states">
          ${SHOWN.map((state) => html`<button type="button" class="chip s-${state}" aria-pressed=${states.has(state)} onClick=${() => toggle(state)}>${word(state).replace(" for its lock", "")}</button>`)}
        </div>
      </div>
      ${wrong.length ? html`<p class="trouble">Not understood: ${wrong.join(" ")}. Words are name: step: upstream: older: younger:</p>` : null}
      <${Trouble} error=${error} />
      <table class="sagas">
        <thead><tr><th scope="col">State</th><th scope="col">Saga</th><th scope="col">What failed</th><th scope="col" class="n">Answered</th><th scope="col" class="n">Took</th><th scope="col" class="n">Came</th></tr></thead>
        <tbody ref=${box}>
          <${Space} high=${above} />
          ${sagas.slice(from, to).map((saga, n) => html`<${Row} key=${saga.id} saga=${saga} now=${now} at=${from + n === at} />`)}
          <${Space} high=${below} />
        </tbody>
      </table>
      ${loaded && !sagas.length && !error ? html`<p class="empty">${states.size || text ? "No saga is like that." : "No saga yet. One begins when a pod sends a request that a saga file's trigger names."}${live?.observing ? html` <a href="#/observed">${live.observing === 1 ? "One saga is" : `${live.observing} sagas are`} only observed.</a>` : null}</p>` : null}
      ${sagas.length ? html`<p class="foot" aria-live="off">${sagas.length}${next ? " so far; further ones come as you scroll" : " in all"}</p>` : null}
    </section>`;
}

function Row({ saga, now, at }) {
  const took = saga.ended ? saga.ended - saga.arrived : GOING.includes(saga.state) ? Math.max(0, now - saga.arrived) : null;
  return html`<tr class=${at ? "at" : ""}>
    <td><${Badge} state=${saga.state} paused=${saga.paused} /></td>
    <th scope="row"><a href="#/saga/${saga.id}"><b>${saga.name}</b> <code>${saga.id}</code></a></th>
    <td class="what" title=${saga.cause ?? ""}>${saga.listening ? "undone; waits for what may come late: " : ""}${saga.cause?.replaceAll("`", "") ?? ""}</td>
    <td class="n">${saga.replied?.status ?? ""}</td>
    <td class="n">${span(took)}</td>
    <td class="n"><time title=${moment(saga.arrived)}>${ago(saga.arrived, now)}</time></td>
  </tr>`;
}
