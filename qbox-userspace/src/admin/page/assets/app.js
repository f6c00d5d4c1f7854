// The page: which view, and what all of them share: the live snapshot, the theme, the token.

import { html, render, useEffect, useRef, useState } from "/assets/vendor/preact.js";
import { live as follow, onTokenNeeded, remember } from "/assets/api.js";
import { Definitions } from "/assets/definitions.js";
import { Sagas } from "/assets/list.js";
import { Node } from "/assets/node.js";
import { Observed, ObservedPage } from "/assets/observed.js";
import { Tally } from "/assets/rates.js";
import { SagaPage } from "/assets/saga.js";
import { Modal } from "/assets/ui.js";

function route() {
  const [, view = "", rest = ""] = location.hash.split("?")[0].split("/");
  return { view, id: decodeURIComponent(rest) };
}

const VIEWS = [["", "Sagas"], ["observed", "Observed"], ["definitions", "Definitions"], ["node", "Node"]];

function Theme() {
  const choose = () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = dark ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("qbox-theme", theme); } catch { /* until the next reload */ }
    dispatchEvent(new Event("qbox-theme"));
  };
  return html`<button type="button" class="quiet" onClick=${choose} aria-label="Light or dark" title="Light or dark">◐</button>`;
}

function AskToken({ again, onToken }) {
  const [token, set] = useState("");
  return html`<${Modal} title="Token" onClose=${() => {}}>
    <form onSubmit=${(event) => { event.preventDefault(); onToken(token.trim()); }}>
      <p>${again ? "That token was not taken." : "This Qbox asks who looks at it."} It is in the file that <code>token_file</code> of <code>[admin]</code> names.</p>
      <label>Token <input type="password" autocomplete="off" required value=${token} onInput=${(event) => set(event.target.value)} /></label>
      <div class="buttons"><button type="submit" class="strong">Go on</button></div>
    </form>
  </${Modal}>`;
}

function App() {
  const [at, setAt] = useState(route());
  const [live, setLive] = useState(null);
  const [lost, setLost] = useState(null);
  const [asks, setAsks] = useState(null);
  const [theme, setTheme] = useState(0);
  const rates = useRef(new Tally());
  const main = useRef(null);
  useEffect(() => {
    const go = () => { setAt(route()); scrollTo(0, 0); main.current?.focus({ preventScroll: true }); };
    addEventListener("hashchange", go);
    const repaint = () => setTheme((n) => n + 1);
    addEventListener("qbox-theme", repaint);
    let waiting = null;
    onTokenNeeded((again) => {
      waiting ??= new Promise((resolve) => {
        setAsks({ again, onToken: (token) => { remember(token); setAsks(null); waiting = null; resolve(); } });
      });
      return waiting;
    });
    follow((snapshot) => { rates.current.learn(snapshot); setLive(snapshot); setLost(null); }, setLost);
    return () => { removeEventListener("hashchange", go); removeEventListener("qbox-theme", repaint); };
  }, []);
  useEffect(() => {
    const stuck = live?.states?.stuck;
    document.title = `${stuck ? `(${stuck} stuck) ` : ""}${at.view === "saga" ? "Saga" : VIEWS.find(([view]) => view === at.view)?.[1] ?? ""} · Qbox`;
  }, [live?.states?.stuck, at.view]);
  const amiss = live?.amiss ?? [];
  // Where nothing is observed, and nothing ever was, there is nothing to see.
  // What somebody has to look at there.
  const count = (view) => (view === "" ? live?.states?.stuck : view === "node" ? (live?.uncaptured ?? 0) + (live?.doubts?.length ?? 0) : 0);
  const views = VIEWS.filter(([view]) => view !== "observed" || at.view === view || live?.observing || live?.observed);
  const health = lost ? ["lost", "no connection"] : !live ? ["", "connecting"] : amiss.length ? ["bad", "not ready"] : ["good", "ready"];
  return html`
    <a class="jump" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>To the content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="/assets/icon.svg" alt="" width="22" height="22" /> Qbox</a>
      <nav aria-label="Views">${views.map(([view, name]) => html`<a href="#/${view}" aria-current=${at.view === view || (view === "" && at.view === "saga") ? "page" : undefined}>${name}${count(view) ? html` <span class="count">${count(view)}</span>` : null}</a>`)}</nav>
      <span class="health ${health[0]}" role="status" title=${lost ?? amiss.join("; ")}>${health[1]}</span>
      <${Theme} />
    </header>
    ${amiss.length && !lost ? html`<p class="trouble wide" role="alert">Not ready: ${amiss.join("; ")}</p>` : null}
    <main ref=${main} id="main" tabindex="-1">
      ${at.view === "saga" ? html`<${SagaPage} id=${at.id} live=${live} key=${at.id} />`
        : at.view === "observed" && at.id ? html`<${ObservedPage} id=${at.id} live=${live} key=${at.id} />`
        : at.view === "observed" ? html`<${Observed} live=${live} />`
        : at.view === "definitions" ? html`<${Definitions} live=${live} />`
        : at.view === "node" ? html`<${Node} live=${live} />`
        : html`<${Sagas} live=${live} rates=${rates.current} key=${`list${theme}`} />`}
    </main>
    ${asks ? html`<${AskToken} ...${asks} />` : null}`;
}

render(html`<${App} />`, document.getElementById("app"));
