// One scan: pictures, stations, measures and estimates, each against the cohort.

import { byId, h, svg, table } from "./dom.js";
import { short, whole } from "./store.js";

const WIDTH = 320, HEIGHT = 22;

export class ScanView {
  constructor(head, store, selection, pictures, ratings) {
    Object.assign(this, { head, store, selection, pictures, ratings });
    this.dialog = byId("scan-view");
    byId("scan-close").addEventListener("click", () => this.dialog.close());
    byId("scan-before").addEventListener("click", () => this.step(-1));
    byId("scan-after").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, textarea, select")) return;
      if (event.key === "ArrowLeft") this.step(-1);
      else if (event.key === "ArrowRight") this.step(1);
      else if (!this.head.anonymous && this.ratings.key(this.row, event.key)) this.drawRating();
      else return;
      event.preventDefault();
    });
  }

  open(row) {
    this.row = row;
    delete this.dialog.dataset.drawn;
    if (!this.dialog.open) this.dialog.showModal();
    return this.draw();
  }

  step(by) {
    const { chosen } = this.selection;
    const next = chosen.indexOf(this.row) + by;
    if (next >= 0 && next < chosen.length) this.open(chosen[next]);
  }

  async draw() {
    const { store, row } = this;
    await store.loadAll(["scan", "status", "level", "reasons", "message", "path", "stations", "affected", "sex", "age", "ood", "picture"]);
    if (row !== this.row) return;
    byId("scan-title").textContent = store.text("scan", row);
    const body = byId("scan-parts");
    body.replaceChildren(h("div", { class: "beside" }, this.picture(), this.facts()), h("div", { id: "scan-rating" }),
      h("div", { id: "scan-estimates" }), h("div", { id: "scan-measures" }), h("div", { id: "scan-stations" }));
    this.dialog.scrollTop = 0;
    this.drawRating();
    await this.drawEstimates(row);
    await this.drawMeasures(row);
    await this.drawStations(row);
    this.dialog.dataset.drawn = row;
  }

  facts() {
    const { store, row, head } = this;
    const lines = [["Status", "status"], ["Quality level", "level"], ["Sex", "sex"], ["Age", "age"], ["Stations", "stations"],
      ["Outlier percentile", "ood"], ["Message", "message"], ["Affected targets", "affected"]]
      .map(([title, name]) => [title, name === "affected" ? (store.text(name, row) ?? "").replaceAll(";", ", ") : store.text(name, row)]).filter(([, text]) => text !== "");
    const path = store.text("path", row);
    if (path) lines.push(["Path", path.replaceAll("{}", store.text("scan", row))]);
    const codes = (store.text("reasons", row) || "").split(";").filter(Boolean);
    const advice = head.counts.reasons.filter((reason) => codes.includes(reason.code))
      .map((reason) => h("li", {}, h("b", {}, reason.code), `: ${reason.meaning}; ${reason.advice}`));
    return h("section", {}, h("dl", { class: "facts-of-scan" }, lines.flatMap(([title, text]) => [h("dt", {}, title), h("dd", {}, text)])),
      advice.length ? h("ul", { class: "advice" }, advice) : null);
  }

  picture() {
    const { channels } = this.head.pictures;
    if (!this.pictures.has(this.row) && !this.maps().length) return h("p", { class: "about" }, this.pictures.any ? "No projection of this scan." : "No pictures: give the folder of projections with --projections.");
    const size = Math.min(256, Math.max(160, this.head.pictures.side));
    const name = this.store.text("scan", this.row);
    return h("div", { class: "channels" }, (this.pictures.has(this.row) ? channels : []).map((channel, k) => {
      const tile = h("div", { class: "tile", role: "img", "aria-label": `${channel} of ${name}` });
      this.pictures.show(tile, this.row, k, size);
      return h("figure", {}, tile, h("figcaption", {}, channel));
    }), this.maps());
  }

  /** Where the networks looked, if saliency maps were given. */
  maps() {
    return this.pictures.mapsOf(this.row).map(([target, source]) => h("figure", {},
      h("img", { src: source, alt: `Saliency map of ${target}`, class: "tile" }), h("figcaption", {}, `saliency of ${target}`)));
  }

  drawRating() {
    if (this.head.anonymous) return;
    byId("scan-rating").replaceChildren(this.ratings.controls(this.row, () => this.drawRating()));
  }

  async drawEstimates(row) {
    const { store, head } = this;
    const names = head.targets.flatMap(({ name }) => ["t", "w", "l", "u", "y"].map((part) => `${part}:${name}`));
    await store.loadAll(names);
    if (row !== this.row || !head.targets.length) return;
    if (Number.isNaN(store.value("stations", row)) && head.targets.every(({ name }) => Number.isNaN(store.value(`t:${name}`, row)))) return;
    const sex = store.value("sex", row);
    const rows = head.targets.map((target) => {
      const { name, unit } = target;
      const value = store.value(`t:${name}`, row), [low, high] = this.interval(name, row, value);
      const cohort = target.spread[sex]?.n > 20 ? target.spread[sex] : target.spread.all;
      const label = this.label(name, row);
      const words = Number.isNaN(low) ? "" : `${store.format(`t:${name}`, low)} to ${store.format(`t:${name}`, high)}`;
      return [name, unit, store.text(`t:${name}`, row), words, ...(head.agreement ? [Number.isNaN(label) ? "" : store.format(`t:${name}`, label)] : []),
        forest(cohort, { value, low, high, label })];
    });
    const level = head.level ? `${short(100 * head.level)} % ` : "";
    byId("scan-estimates").replaceChildren(h("h4", {}, "Estimates"),
      h("p", { class: "about" }, `Point and line: estimate and ${level}interval. Band: 90 % of the cohort${sex ? " of this sex" : ""}, its tick the median.`,
        head.agreement ? " Diamond: the label." : "", head.agreement && !head.allLabels ? " Of so many labels the page holds those of the largest errors." : "",
        head.fine ? "" : " Rounded for the page; the exact numbers are in estimates.csv."),
      table(`Estimates of ${store.text("scan", row)}`, ["Target", "Unit", ">Estimate", ">Interval", ...(head.agreement ? [">Label"] : []), "Against the cohort"], rows));
  }

  /** The label of a target: on a page of very many, only those of the largest errors are known. */
  label(name, row) {
    if (this.store.has(`y:${name}`)) return this.store.value(`y:${name}`, row);
    const worst = this.head.agreement?.targets.find((target) => target.name === name)?.worst;
    return worst?.labels[worst.rows.indexOf(row)] ?? NaN;
  }

  interval(name, row, value) {
    const { store } = this;
    if (store.has(`l:${name}`)) return [store.value(`l:${name}`, row), store.value(`u:${name}`, row)];
    const half = store.has(`w:${name}`) ? store.value(`w:${name}`, row) : NaN;
    return [value - half, value + half];
  }

  async drawMeasures(row) {
    const { store, head } = this;
    const names = [...store.columns.keys()].filter((name) => name.startsWith("m:") && !/_\d+(_\w+)?$/.test(name));
    await store.loadAll(names);
    if (row !== this.row || !names.length) return;
    const rows = names.filter((name) => store.text(name, row) !== "").map((name) => {
      const column = store.column(name), limits = head.limits[name.slice(2)] ?? [];
      const marks = limits.flatMap(({ below, above }) => [below, above]).filter((v) => v !== null);
      const plot = column.kind === "number" ? forest(spreadOf(store, name), { value: store.value(name, row), marks }) : "";
      return [h("span", { title: column.about }, column.title), column.unit, store.text(name, row), plot, limits.map(({ code, words }) => `${code}: ${words}`).join(" · ")];
    });
    byId("scan-measures").replaceChildren(h("h4", {}, "Image quality"), table("Measures against the cohort", ["Measure", "Unit", ">Value", "Against the cohort", "Limits"], rows));
  }

  /** The stations from head to knee, with the measures that the page has of each. */
  async drawStations(row) {
    const { store, head } = this;
    const names = [...store.columns.keys()].filter((name) => /^m:(?!swap).*_\d+$/.test(name));
    await store.loadAll(names);
    const count = store.value("stations", row);
    if (row !== this.row || !(count > 0)) return;
    const total = head.protocol.reduce((sum, { slices, mm }) => sum + slices * mm, 0);
    const message = store.text("message", row); // names what broke a limit: "snr_3 is 4.1, expected at least 10"
    const bars = Array.from({ length: Math.round(count) }, (_, k) => {
      const { slices, mm, name } = head.protocol[k] ?? head.protocol.at(-1);
      const flagged = message.includes(`_${k + 1} is `);
      return h("li", { style: `flex-grow:${(slices * mm) / total}`, class: flagged ? "flagged" : null }, `${k + 1}`,
        h("span", {}, `${name}, ${slices} × ${mm} mm`), flagged ? h("b", {}, "flagged") : null);
    });
    const measures = [...new Set(names.map((name) => name.replace(/_\d+$/, "")))];
    const rows = measures.map((measure) => [store.column(measure)?.title ?? measure.slice(2),
      ...Array.from({ length: Math.round(count) }, (_, k) => (store.has(`${measure}_${k + 1}`) ? store.text(`${measure}_${k + 1}`, row) : ""))]);
    byId("scan-stations").replaceChildren(h("h4", {}, `${whole(count)} stations`),
      h("p", { class: "about" }, "Heights as the protocol has them, head first; a seam has the number of its upper station."),
      h("div", { class: "stations" }, h("ol", { class: "layout", "aria-label": "Stations, head first" }, bars),
        rows.length ? table("Measures of each station", ["Measure", ...bars.map((_, k) => `>${k + 1}`)], rows)
          : store.has("m:snr") ? h("p", { class: "about" }, "Measures of each station are in quality.csv.") : null));
  }
}

const spreads = new Map();
/** The range that 90 % of a loaded column lie in, counted once. */
function spreadOf(store, name) {
  if (!spreads.has(name)) {
    const codes = store.ready.get(name);
    const known = codes.filter((code) => code > 0).sort();
    const at = (share) => store.number(name, known[Math.min(known.length - 1, Math.floor(share * known.length))]);
    spreads.set(name, { n: known.length, p5: at(0.05), median: at(0.5), p95: at(0.95) });
  }
  return spreads.get(name);
}

/** Band of the cohort, the scan's value and interval, its label, limits; described in words. */
function forest(cohort, { value, low, high, label, marks = [] }) {
  if (!cohort?.n || Number.isNaN(value)) return "";
  const span = cohort.p95 - cohort.p5 || Math.abs(cohort.median) || 1;
  const known = [value, low, high, label].filter((v) => v !== undefined && !Number.isNaN(v));
  const from = Math.max(cohort.p5 - span, Math.min(cohort.p5 - 0.25 * span, ...known));
  const to = Math.min(cohort.p95 + span, Math.max(cohort.p95 + 0.25 * span, ...known));
  const at = (v) => 4 + ((Math.min(to, Math.max(from, v)) - from) / (to - from)) * (WIDTH - 8);
  const middle = HEIGHT / 2;
  const inside = value < cohort.p5 ? "below" : value > cohort.p95 ? "above" : "within";
  const line = (x, kind) => svg("line", { x1: at(x), x2: at(x), y1: 2, y2: HEIGHT - 2, class: kind });
  const parts = [svg("rect", { x: at(cohort.p5), y: 4, width: Math.max(1, at(cohort.p95) - at(cohort.p5)), height: HEIGHT - 8, class: "band" }), line(cohort.median, "median")];
  parts.push(...marks.filter((v) => v > from && v < to).map((v) => line(v, "mark")));
  if (low !== undefined && !Number.isNaN(low)) parts.push(svg("line", { x1: at(low), x2: at(high), y1: middle, y2: middle, class: "interval" }));
  parts.push(svg("circle", { cx: at(value), cy: middle, r: 4, class: inside === "within" ? "point" : "point out" }));
  if (label !== undefined && !Number.isNaN(label)) {
    const x = at(label);
    parts.push(svg("path", { d: `M${x - 5},${middle}L${x},${middle - 5}L${x + 5},${middle}L${x},${middle + 5}Z`, class: "label" }));
  }
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img", "aria-label": `${inside} the range of 90 % of the cohort, ${short(cohort.p5)} to ${short(cohort.p95)}` }, parts);
}
