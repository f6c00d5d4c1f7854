// What long lists share: only the rows in sight are drawn, the keys go through them, and a search waits until one has typed.

import { html, useEffect, useLayoutEffect, useRef, useState } from "/assets/vendor/preact.js";

/** Ids are UUIDs of version 7: they sort by time. */
export const youngest = (a, b) => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);

/** As many rows as a list keeps; older ones are found by a filter. */
export const MOST = 20000;
/** With fewer than so many rows left below those in sight, more are asked for. */
const AHEAD = 60;

/** A search field's text, how to change it, and the text once one has stopped typing. It begins with that parameter of the address. */
export function useTyped(parameter) {
  const [typed, setTyped] = useState(() => new URLSearchParams(location.hash.split("?")[1]).get(parameter) ?? "");
  const [text, setText] = useState(typed);
  useEffect(() => { const timer = setTimeout(() => setText(typed), 200); return () => clearTimeout(timer); }, [typed]);
  return [typed, setTyped, text];
}

/**
 * Changes a list's store by `work`, and has it shown: one at a time. What is asked for meanwhile comes next; of several, the last. `kept` is the ref to
 * the store that is shown; one that is no more shown is left.
 */
export async function renew(store, kept, set, show, work) {
  if (store.busy) { store.after = work; return; }
  store.busy = true;
  try {
    for (let now = work; now; now = store.after) {
      store.after = null;
      await now();
      if (kept.current !== store) return;
      show(store);
    }
  } catch (error) {
    if (kept.current === store) set((old) => ({ ...old, error, loaded: true }));
  } finally { store.busy = false; }
}

/**
 * Has the list's next page added by `work`, if there is one and it has room for it. While something else changes the store nothing is done: that has the
 * list shown anew, and `useRows` asks for more again.
 */
export function grow(store, kept, set, show, work) {
  if (!store.busy && store.next && store.byId.size < MOST) renew(store, kept, set, show, work);
}

/** The rows in sight of a long table. */
function useWindow(count, height) {
  const box = useRef(null);
  const [range, set] = useState([0, 40]);
  useLayoutEffect(() => {
    const look = () => {
      const top = box.current?.getBoundingClientRect().top ?? 0;
      const from = Math.max(0, Math.floor(-top / height) - 10);
      const to = Math.min(count, Math.ceil((innerHeight - top) / height) + 10);
      set((old) => (old[0] === from && old[1] === to ? old : [from, Math.max(from, to)]));
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => { removeEventListener("scroll", look); removeEventListener("resize", look); };
  }, [count, height]);
  return [box, range];
}

function useNarrow() {
  const [narrow, set] = useState(matchMedia("(max-width: 720px)").matches);
  useEffect(() => {
    const media = matchMedia("(max-width: 720px)");
    const change = () => set(media.matches);
    media.addEventListener("change", change);
    return () => media.removeEventListener("change", change);
  }, []);
  return narrow;
}

/**
 * The rows from `from` to `to` are to be drawn, in an element with the ref `box`, between two spaces of `above` and `below` pixels; `at` is the
 * chosen one's place. j and k choose, Enter follows `link(row)`, and / goes to the field with the ref `search`. `more()` is called near the end of the
 * rows, and after each change of them.
 */
export function useRows(rows, link, search, more) {
  const [at, setAt] = useState(-1);
  const height = useNarrow() ? 62 : 38;
  const [box, [from, to]] = useWindow(rows.length, height);
  useEffect(() => { if (to > rows.length - AHEAD) more(); }, [to, rows]);
  // As it was drawn last: the next key may come before the effects of this one.
  const drawn = useRef(null);
  drawn.current = { rows, at, height };
  useEffect(() => {
    const key = (event) => {
      const { rows, at, height } = drawn.current;
      const field = event.target.closest?.("input, textarea, select, dialog");
      if (event.key === "/" && !field) { event.preventDefault(); search.current?.focus(); return; }
      if (field || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j" || event.key === "k") {
        const to = Math.min(rows.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)));
        setAt(to);
        const top = box.current.getBoundingClientRect().top + scrollY + to * height;
        if (top < scrollY + 120) scrollTo({ top: top - 120 }); else if (top > scrollY + innerHeight - 100) scrollTo({ top: top - innerHeight + 100 });
      }
      const here = event.target === document.body || event.target.id === "main";
      if (event.key === "Enter" && at >= 0 && rows[at] && here) location.hash = link(rows[at]);
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  return { box, from, to, at, above: from * height, below: Math.max(0, rows.length - to) * height };
}

/** Room for rows that are not drawn. */
export function Space({ high }) {
  return high > 0 ? html`<tr aria-hidden="true"><td colspan="6" style=${{ height: `${high}px`, padding: 0 }}></td></tr>` : null;
}
