// Plots by uPlot, in the page's own colours; a histogram can be brushed to filter.

import uPlot from "uplot";
import { h } from "./dom.js";
import { short, whole } from "./store.js";

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const drawn = new Set();
/** Draws all plots again, in the colours of the mode. */
export function redrawAll() {
  for (const plot of drawn) {
    if (plot.root.isConnected) plot.redraw(false);
    else drawn.delete(plot);
  }
}

const counts = (_, ticks) => ticks.map((v) => (v >= 1000 ? `${v / 1000}k` : Number.isInteger(v) ? v : ""));
const numbers = (_, ticks) => ticks.map((v) => Number(v.toPrecision(6)).toString());
const named = (label) => ({ label, labelSize: label ? 16 : 0, labelFont: "11px system-ui" });

/** Axes of a plot: counts upwards, or numbers of which `up` says what they are. */
const axes = (label, up = null) => [
  { stroke: () => colour("ink"), grid: { show: false }, ticks: { stroke: () => colour("line"), size: 4 }, font: "11px system-ui",
    ...named(label), size: 26, space: 55, values: numbers },
  { stroke: () => colour("ink"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui",
    ...named(up), size: 46, space: 24, values: up === null ? counts : numbers },
];

const base = (width, height) => ({
  width, height, legend: { show: false }, padding: [8, 8, 0, 0],
  cursor: { points: { show: false }, drag: { x: false, y: false, setScale: false }, y: false },
});

function make(options, data, target) {
  const plot = new uPlot(options, data, target);
  drawn.add(plot);
  return plot;
}

/** Bin edges of a histogram, in the column's unit. */
export function edgesOf(store, name) {
  const { first, per, counts } = store.column(name).histogram;
  return Array.from({ length: counts.all.length + 1 }, (_, k) => store.number(name, first + k * per - 0.5));
}

/** Counts of the chosen rows by group, in the bins that the page came with. */
export function countChosen(store, name, chosen) {
  const { first, per, counts } = store.column(name).histogram;
  const bins = counts.all.length, codes = store.ready.get(name), groups = groupsOf(store);
  const place = new Uint8Array(codes.BYTES_PER_ELEMENT === 1 ? 256 : 65536);
  for (let code = 1; code < place.length; code++) place[code] = Math.min(bins - 1, Math.max(0, Math.floor((code - first) / per)));
  const found = new Uint32Array(GROUPS.length * bins);
  for (let k = 0; k < chosen.length; k++) {
    const row = chosen[k], code = codes[row];
    if (code) found[groups[row] * bins + place[code]]++;
  }
  const [rest, female, male] = GROUPS.map((_, k) => Array.from(found.subarray(k * bins, (k + 1) * bins)));
  return { all: rest.map((count, k) => count + female[k] + male[k]), female, male };
}

const GROUPS = ["", "female", "male"];
let grouped = null;
/** Place in GROUPS of each row; of nobody's sex until the column is loaded. */
function groupsOf(store) {
  const codes = store.ready.get("sex");
  if (!codes) return new Uint8Array(store.rows);
  if (!grouped) {
    const of = store.column("sex").words.map((word) => Math.max(0, GROUPS.indexOf(word)));
    grouped = Uint8Array.from(codes, (code) => of[code]);
  }
  return grouped;
}

/** Doubles points so that a line runs flat over each bin. */
function steps(edges, counts) {
  return counts.flatMap((count) => [count, count]);
}

export class Histogram {
  /** A histogram in an element; `lines` are limits drawn upright, `brush` is told the range that was drawn. */
  constructor(store, name, target, { lines = [], brush, height = 130 } = {}) {
    Object.assign(this, { store, name, target, lines });
    this.edges = edgesOf(store, name);
    const column = store.column(name);
    this.counts = column.histogram.counts;
    const x = this.edges.slice(0, -1).flatMap((edge, k) => [edge, this.edges[k + 1]]);
    this.x = x;
    const series = (stroke, more = {}) => ({ stroke: () => colour(stroke), width: 1.8, points: { show: false }, ...more });
    const options = base(Math.max(180, target.clientWidth), height);
    const plot = make({
      ...options,
      cursor: { ...options.cursor, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: false, range: [x[0], x.at(-1)] }, y: { range: (_, low, high) => [0, Math.max(1, high) * 1.05] } },
      axes: axes(column.unit),
      series: [{}, series("muted", { fill: () => colour("fill"), width: 1 }), series("chosen", { fill: () => colour("chosen-fill"), width: 1 }),
        series("female"), series("male", { dash: [5, 3] })],
      hooks: {
        draw: [(u) => this.drawLines(u)],
        setSelect: [(u) => {
          const { left, width } = u.select;
          brush?.(width > 3 ? { low: u.posToVal(left, "x"), high: u.posToVal(left + width, "x") } : null);
        }],
      },
    }, this.data(null), target);
    this.plot = plot;
    plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    this.describe();
  }

  data(found) {
    const { all, female, male } = found ?? this.counts;
    const bySex = this.store.has("sex");
    const line = (counts) => steps(this.edges, counts);
    const none = this.x.map(() => null);
    return [this.x, line(this.counts.all), found ? line(all) : none, bySex ? line(female) : none, bySex ? line(male) : none];
  }

  /** Show what is chosen, or everything again. */
  update(chosen) {
    this.plot.setData(this.data(chosen ? countChosen(this.store, this.name, chosen) : null));
  }

  clearBrush() {
    if (this.plot.select.width) this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  drawLines(u) {
    const { ctx } = u;
    ctx.save();
    ctx.strokeStyle = colour("limit");
    ctx.lineWidth = 2 * devicePixelRatio;
    for (const value of this.lines) {
      if (value < this.x[0] || value > this.x.at(-1)) continue;
      const at = u.valToPos(value, "x", true);
      ctx.beginPath();
      ctx.moveTo(at, u.bbox.top);
      ctx.lineTo(at, u.bbox.top + u.bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  describe() {
    const { title, unit } = this.store.column(this.name);
    const total = this.counts.all.reduce((a, b) => a + b, 0);
    const top = this.counts.all.indexOf(Math.max(...this.counts.all));
    const range = `from ${short(this.edges[0])} to ${short(this.edges.at(-1))} ${unit}`;
    this.target.setAttribute("role", "img");
    this.target.setAttribute("aria-label", `Histogram of ${title}: ${whole(total)} scans ${range}, `
      + `most between ${short(this.edges[top])} and ${short(this.edges[top + 1])}`);
  }
}

/** Lines over a common x: each with values, colour and dash. */
export function linePlot(target, { x, lines, label, up = "", words, height = 150, diagonal = false }) {
  const ends = [Math.min(...x), Math.max(...x)];
  const series = lines.map(({ stroke, dash, dots, thin }) => ({
    stroke: () => colour(stroke), width: dots ? 0 : thin ? 0.8 : 1.8, dash, spanGaps: true,
    points: { show: dots ?? !thin, size: dots ? 3 : 5, fill: () => colour(stroke), stroke: () => colour(stroke) },
    paths: dots ? () => null : undefined,
  }));
  const values = [x, ...lines.map((line) => line.values)];
  if (diagonal) {
    series.push({ stroke: () => colour("muted"), width: 1, dash: [2, 3], points: { show: false } });
    values.push(x);
  }
  const known = values.slice(1).flat().filter((v) => v !== null);
  const low = Math.min(...known), high = Math.max(...known), pad = 0.04 * (high - low || 1);
  make({
    ...base(Math.max(180, target.clientWidth), height),
    scales: { x: { time: false, range: ends[0] === ends[1] ? [ends[0] - 1, ends[0] + 1] : ends }, y: { range: [low - pad, high + pad] } },
    axes: axes(label, up), series: [{}, ...series],
  }, values, target);
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", words);
}

const waiting = new Set();
/** Draws when the element comes into view, so that a page of a hundred plots opens at once; all before printing. */
export function whenVisible(element, draw) {
  const begin = () => {
    watcher.disconnect();
    if (waiting.delete(begin)) draw();
  };
  const watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && begin(), { rootMargin: "200px" });
  waiting.add(begin);
  watcher.observe(element);
}

addEventListener("beforeprint", () => waiting.forEach((begin) => begin()));

export const legend = (entries) => h("p", { class: "legend" }, entries.map(([mark, text]) =>
  h("span", {}, h("span", { class: `mark ${mark}`, "aria-hidden": "true" }), text)));
