// How many sagas begin and end each second, over the last minutes, as this page has seen it.

import { html, useEffect, useRef } from "/assets/vendor/preact.js";

/** Seconds that are shown. */
const SHOWN = 180;

/** Keeps totals a second, and makes rates of them. */
export class Tally {
  constructor() { this.points = []; }

  /** Takes a snapshot of `/api/v1/live` in. */
  learn(live) {
    const at = Math.floor(live.at / 1e6);
    const { begun, committed, compensated } = live.totals;
    const last = this.points[this.points.length - 1];
    // Totals begin anew with the process.
    if (last && begun < last.begun) this.points = [];
    if (last && last.at === at) Object.assign(last, { begun, committed, compensated });
    else this.points.push({ at, begun, committed, compensated });
    while (this.points.length > SHOWN + 1) this.points.shift();
  }

  /** uPlot's columns: times, then a rate for each of the totals. Snapshots come only when something changed, so gaps are quiet. */
  columns(now) {
    const to = Math.floor(now / 1e6);
    const columns = [[], [], [], []];
    let next = 0;
    let before = this.points[0];
    for (let at = to - SHOWN; at <= to; at++) {
      let sum = null;
      while (next < this.points.length && this.points[next].at <= at) sum = this.points[next++];
      columns[0].push(at);
      const known = before && at >= this.points[0].at;
      ["begun", "committed", "compensated"].forEach((key, n) => columns[n + 1].push(!known ? null : sum ? sum[key] - before[key] : 0));
      if (sum) before = sum;
    }
    return columns;
  }
}

/** The chart. */
export function Rates({ rates }) {
  const place = useRef(null);
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const size = () => ({ width: Math.max(200, place.current.clientWidth), height: 120 });
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const line = (label, name, dash) => ({ label, stroke: colour(name), width: 1.5, dash, points: { show: false } });
    const chart = new uPlot({
      ...size(),
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 4, 0, 0],
      scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
      axes: [{ ...axis, size: 22, space: 90 }, { ...axis, size: 38, space: 32 }],
      series: [{}, line("begun", "--running"), line("committed", "--committed"), line("compensated", "--compensated", [5, 3])],
    }, rates.columns(Date.now() * 1000), place.current);
    const timer = setInterval(() => chart.setData(rates.columns(Date.now() * 1000)), 1000);
    const watch = new ResizeObserver(() => chart.setSize(size()));
    watch.observe(place.current);
    return () => { clearInterval(timer); watch.disconnect(); chart.destroy(); };
  }, [rates]);
  return html`<figure class="rates" aria-label="Sagas a second, over the last three minutes">
    <div ref=${place}></div>
    <figcaption><span><i class="s-running"></i> begun</span><span><i class="s-committed"></i> committed</span><span><i class="s-compensated"></i> compensated</span> <span class="dim">a second, last 3 minutes</span></figcaption>
  </figure>`;
}
