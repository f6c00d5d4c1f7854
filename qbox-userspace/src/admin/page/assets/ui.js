// What all views share: words for times and states, and small pieces.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact.js";

/** How a state is shown: a word and a sign, so that it doesn't hang on the colour. */
export const STATES = {
  waiting: ["waiting for its lock", "◷"],
  running: ["running", "▶"],
  committed: ["committed", "✓"],
  compensating: ["compensating", "↺"],
  compensated: ["compensated", "↩"],
  stuck: ["stuck", "!"],
  halted: ["halted", "✕"],
  observed: ["observed", "◉"],
  pending: ["pending", "·"],
  applied: ["applied", "✓"],
  not_applied: ["not applied", "⊘"],
  refused: ["not applied", "⊘"],
  unknown: ["unknown", "?"],
  skipped: ["skipped", "»"],
  undoing: ["being undone", "↺"],
  undone: ["undone", "↩"],
};

/** The states in which a saga goes on by itself. */
export const GOING = ["waiting", "running", "compensating"];

export const word = (state) => STATES[state]?.[0] ?? state;
export const sign = (state) => STATES[state]?.[1] ?? "•";

/** A state with its colour, sign and word. */
export function Badge({ state, paused }) {
  return html`<span class="badge s-${state}"><span aria-hidden="true">${sign(state)}</span> ${word(state)}${paused ? ", paused" : ""}</span>`;
}

/** Microseconds as a person would say them. */
export function span(us) {
  if (us == null || Number.isNaN(us)) return "";
  const ms = us / 1000;
  if (ms < 1) return `${Math.round(us)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(2)} s`;
  if (s < 60) return `${s.toFixed(1)} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m} min ${Math.round(s % 60)} s`;
  const h = Math.floor(m / 60);
  if (h < 48) return `${h} h ${m % 60} min`;
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

/** How long ago. `now` and `at` in microseconds. */
export function ago(at, now) {
  const us = Math.max(0, now - at);
  if (us < 1e6) return "now";
  if (us < 60e6) return `${Math.floor(us / 1e6)} s ago`;
  if (us < 3600e6) return `${Math.floor(us / 60e6)} min ago`;
  if (us < 48 * 3600e6) return `${Math.floor(us / 3600e6)} h ago`;
  return `${Math.floor(us / 86400e6)} d ago`;
}

/** A moment, to the millisecond, in the reader's time zone. */
export function moment(us) {
  const date = new Date(us / 1000);
  const two = (n) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export const nowMicros = () => Date.now() * 1000;

/** Microseconds since 1970, renewed every so many milliseconds. */
export function useNow(every = 1000) {
  const [now, set] = useState(nowMicros());
  useEffect(() => {
    const timer = setInterval(() => set(nowMicros()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

/** What `load(signal)` gives, loaded anew when `keys` change; the last value stays until the next is there. */
export function useLoaded(load, keys) {
  const [state, set] = useState({ value: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    load(stop.signal).then(
      (value) => set({ value, error: null }),
      (error) => { if (error.name !== "AbortError") set((old) => ({ value: old.value, error })); },
    );
    return () => stop.abort();
  }, keys);
  return state;
}

/** Something that could not be had. */
export function Trouble({ error }) {
  return error && html`<p class="trouble" role="alert">${error.message}</p>`;
}

/** A text with a button that copies it. */
export function Copy({ text, children }) {
  const [done, set] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      set(true);
      setTimeout(() => set(false), 1500);
    } catch { /* not allowed here: it can be selected */ }
  };
  return html`<span class="copy"><code>${children ?? text}</code><button type="button" class="quiet" onClick=${copy} aria-label=${`Copy ${text}`} title="Copy">${done ? "copied" : "copy"}</button></span>`;
}

/** A modal dialog; `onClose` when it is left. The element gives focus, Escape and the backdrop. */
export function Modal({ title, onClose, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    dialog.querySelector("input")?.focus();
    return () => dialog.close();
  }, []);
  return html`<dialog ref=${ref} aria-labelledby="dialog-title" onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`;
}
