// A saga's steps as a picture. dagre says where each goes; this only draws.

import { html } from "/assets/vendor/preact.js";
import { sign, word } from "/assets/ui.js";

const HIGH = 46;
const LETTER = 7.6;

function layout(steps, across) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: across ? "LR" : "TB", nodesep: 16, ranksep: across ? 44 : 30, marginx: 6, marginy: 6 });
  graph.setDefaultEdgeLabel(() => ({}));
  const known = new Set(steps.map((step) => step.name));
  for (const step of steps) {
    const text = Math.max(step.name.length, word(step.state ?? "").length + 2, (step.kind ?? "").length);
    graph.setNode(step.name, { width: Math.min(240, Math.max(104, text * LETTER + 30)), height: HIGH, step });
  }
  for (const step of steps) for (const before of step.after ?? []) if (known.has(before)) graph.setEdge(before, step.name);
  dagre.layout(graph);
  return graph;
}

/** From the side of one step to the side of another, through the places that dagre keeps free of steps. */
function path(graph, { v, w }, across) {
  const [from, to] = [graph.node(v), graph.node(w)];
  const inner = graph.edge({ v, w }).points.slice(1, -1);
  const ends = across
    ? [{ x: from.x + from.width / 2, y: from.y }, { x: to.x - to.width / 2, y: to.y }]
    : [{ x: from.x, y: from.y + HIGH / 2 }, { x: to.x, y: to.y - HIGH / 2 }];
  const points = [ends[0], ...(inner.length > 1 ? inner : []), ends[1]];
  return points.slice(1).reduce((drawn, { x, y }, n) => {
    const last = points[n];
    return across
      ? `${drawn}C${(last.x + x) / 2},${last.y} ${(last.x + x) / 2},${y} ${x},${y}`
      : `${drawn}C${last.x},${(last.y + y) / 2} ${x},${(last.y + y) / 2} ${x},${y}`;
  }, `M${ends[0].x},${ends[0].y}`);
}

const KINDS = { pivot: "point of no return", retriable: "retried until applied" };

/** The picture. `chosen` is a step's name, `onChoose` gets one. */
export function Graph({ steps, label, chosen, onChoose, across = true }) {
  if (!steps?.length) return null;
  const graph = layout(steps, across);
  const { width, height } = graph.graph();
  const short = (text, wide) => {
    const most = Math.floor((wide - 24) / LETTER);
    return text.length > most ? `${text.slice(0, most - 1)}…` : text;
  };
  // Where no step can be chosen the picture itself has to be, or the keyboard could not scroll it.
  return html`<div class="graph" tabindex=${onChoose ? undefined : 0} role=${onChoose ? undefined : "group"} aria-label=${onChoose ? undefined : label}>
    <svg viewBox="0 0 ${width} ${height}" width=${width} height=${height} role="group" aria-label=${onChoose ? label : undefined}>
      <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0,0L8,4L0,8z" class="tip" /></marker></defs>
      ${graph.edges().map((edge) => html`<path class="edge" d=${path(graph, edge, across)} marker-end="url(#tip)" />`)}
      ${graph.nodes().map((name) => {
        const { x, y, width: wide, step } = graph.node(name);
        const state = step.state ?? "plain";
        const said = [name, step.state && word(step.state), KINDS[step.kind]].filter(Boolean).join(", ");
        const choose = onChoose && (() => onChoose(chosen === name ? null : name));
        return html`<g class="node s-${state} ${step.kind ?? ""} ${chosen === name ? "chosen" : ""}" transform="translate(${x - wide / 2},${y - HIGH / 2})"
            role=${onChoose ? "button" : "img"} tabindex=${onChoose ? 0 : undefined} aria-label=${said} aria-pressed=${onChoose ? chosen === name : undefined}
            onClick=${choose} onKeyDown=${choose && ((event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } })}>
          <title>${said}${step.cause ? `: ${step.cause}` : ""}</title>
          <rect width=${wide} height=${HIGH} rx=${step.kind === "pivot" ? 2 : 9} />
          <text x="12" y="19" class="name">${short(name, wide)}</text>
          <text x="12" y="36" class="what">${step.state ? `${sign(step.state)} ${word(step.state)}` : step.kind ?? ""}</text>
        </g>`;
      })}
    </svg>
  </div>`;
}
