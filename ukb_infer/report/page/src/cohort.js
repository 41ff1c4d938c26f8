// The first section: counts, reasons, targets, quality, agreement, visits. All numbers come aggregated in the head.

import { addSection, byId, h, table } from "./dom.js";
import { Histogram, countChosen, legend, linePlot, whenVisible } from "./plots.js";
import { short, whole } from "./store.js";

const scans = (count) => `${whole(count)} scan${count === 1 ? "" : "s"}`;
const percent = (value, digits = 0) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`);

export class Cohort {
  constructor(head, store, selection, open) {
    Object.assign(this, { head, store, selection, open });
    this.histograms = new Map();
    this.mode = "t";
    selection.addEventListener("change", () => this.updatePlots());
    if (head.card) {
      this.drawAgreement();
      this.drawCard();
      return;
    }
    this.drawCounts();
    this.drawReasons();
    this.drawTargets();
    this.drawQuality();
    this.drawAgreement();
    this.drawVisits();
  }

  /** Groups, limits and the items of TRIPOD+AI of an evaluation. */
  drawCard() {
    const { groups, limits, items } = this.head.card;
    if (groups.length) {
      this.section("groups", "Groups", table("Accuracy and calibration in groups of people",
        ["Target", "Group", ">Scans", ">MAE", ">Bias", ">Coverage", ">AUROC", ">Calibration error"],
        groups.map(({ target, group, n, metrics: m }) => [target, group, whole(n), short(m.mae), short(m.bias), percent(m.coverage, 1), short(m.auroc), short(m.calibration_error)])));
    }
    this.section("limits", "Limits", h("ul", {}, limits.map((limit) => h("li", {}, limit))));
    const missing = items.filter((item) => !item[3]).length;
    this.section("tripod", "TRIPOD+AI", h("p", { class: "about" }, `After Collins et al., BMJ 2024;385:e078378, in our words. ${missing} of ${items.length} items are missing: only the authors of a study can write them.`),
      table("What a report of a prediction model says", ["Item", "Section", "Asked for", "Answer"],
        items.map(([number, section, asked, answer]) => [number, section, asked, answer || h("b", {}, "missing")])));
  }

  section(id, title, ...children) { addSection(id, title, children); }

  drawCounts() {
    const { status, levels } = this.head.counts;
    const show = (name, words, value) => h("li", {}, h("button", { type: "button", class: `count ${words[0] === "0" ? "" : value}`,
      onclick: () => this.filterWords(name, (word) => word === value) }, h("b", {}, words[0]), ` ${words[1]}`));
    byId("counts").append(
      h("li", {}, h("button", { type: "button", class: "count", onclick: () => this.selection.clear() },
        h("b", {}, whole(this.head.rows)), " scans")),
      ...Object.entries(status).map(([name, count]) => show("status", [whole(count), name], name)),
      ...Object.entries(levels).filter(([, count]) => count).map(([name, count]) =>
        show("level", [whole(count), { unusable: "unusable", targets: "with affected targets", note: "with notes" }[name]], name)));
  }

  filterWords(name, words) {
    this.selection.setFilter(name, { words, label: `${this.store.column(name).title} as chosen` });
    byId("scans").scrollIntoView();
  }

  drawReasons() {
    const { reasons } = this.head.counts;
    if (!reasons.length) {
      this.section("reasons", "Reasons", h("p", {}, "No scan failed and none is flagged."));
      return;
    }
    const rows = reasons.map((reason) => [
      h("button", { type: "button", class: "link", onclick: () => this.filterReason(reason.code) }, reason.code),
      whole(reason.count), percent(reason.count / this.head.rows, 1), reason.kind, reason.meaning, reason.advice,
    ]);
    this.section("reasons", "Reasons", table("Every reason and what to do; its button shows the scans that have it",
      ["Reason", ">Scans", ">Share", "Kind", "Meaning", "What to do"], rows));
  }

  filterReason(code) {
    this.selection.setFilter("reasons", { words: (word) => word.split(";").includes(code), label: `Reason ${code}` });
    byId("scans").scrollIntoView();
  }

  // -- targets

  drawTargets() {
    const { targets } = this.head;
    if (!targets.length) return;
    const modes = [["t", "Estimates"], ["w", "Widths of intervals"]];
    if (targets.some((target) => target.age)) modes.push(["a", "By age"]);
    const choice = h("fieldset", { class: "modes" }, h("legend", {}, "Show"), modes.map(([value, words]) => {
      const radio = h("input", { type: "radio", name: "mode", value, onchange: () => this.setMode(value) });
      radio.checked = value === "t";
      return h("label", {}, radio, words);
    }));
    const from = { phenotypes: "Sex is from the phenotypes.", estimates: "Sex is the estimated one." }[this.head.sexFrom] ?? "Sex is not known.";
    const bySex = this.store.has("sex") ? [["female", "female"], ["male", "male"]] : [];
    const about = h("p", { class: "about" }, "Drag over a histogram to filter all plots and the table; a click removes the filter. ",
      `${from} End bins also hold what lies beyond. The published accuracy is that of other networks, on people.`);
    this.panels = h("div", { class: "panels" });
    this.section("targets", "Targets", choice, about, legend([["all", "all scans"], ["picked", "chosen scans"], ...bySex]), this.panels,
      this.targetTable());
    this.drawPanels();
  }

  setMode(mode) {
    this.mode = mode;
    for (const name of [...this.histograms.keys()]) if (/^[tw]:/.test(name)) this.histograms.delete(name);
    this.drawPanels();
  }

  drawPanels() {
    this.panels.replaceChildren(...this.head.targets.map((target) => {
      const plot = h("div", { class: "plot" });
      const panel = h("article", { class: "panel" }, h("h4", {}, target.name, h("span", { class: "unit" }, ` ${target.unit}`)),
        h("p", { class: "facts" }, this.factsOf(target)), plot);
      whenVisible(panel, () => (this.mode === "a" ? this.drawAges(target, plot) : this.addHistogram(`${this.mode}:${target.name}`, plot, [], panel)));
      return panel;
    }));
  }

  factsOf({ spread, width, published, expected_mae: expected, kind, positive }) {
    if (!spread.all.n) return "no estimates";
    if (this.mode === "w") {
      return kind === "binary" ? "no interval" : `half width ${short(width.median)} (90 %: ${short(width.p5)} to ${short(width.p95)})`;
    }
    if (kind === "binary") return `${percent(positive, 1)} have a probability of at least 0.5${published.auc === null ? "" : `; published AUC ${short(published.auc)}`}`;
    const parts = [`median ${short(spread.all.median)} (90 %: ${short(spread.all.p5)} to ${short(spread.all.p95)})`];
    if (expected !== null) parts.push(`expected MAE ${short(expected)}${published.mae === null ? "" : `, published ${short(published.mae)}`}`);
    return parts.join("; ");
  }

  drawAges(target, plot) {
    if (!target.age) return;
    const { age, ...groups } = target.age;
    const marks = { female: { stroke: "female" }, male: { stroke: "male", dash: [5, 3] }, all: { stroke: "chosen" } };
    const lines = Object.entries(groups).map(([name, values]) => ({ values, ...marks[name] }));
    if (!lines.some((line) => line.values.some((v) => v !== null))) {
      plot.replaceChildren("too few scans with an age");
      return;
    }
    linePlot(plot, { x: age, lines, label: "age, years", words: `Median ${target.name} by age and sex`, height: 130 });
  }

  targetTable() {
    const rows = this.head.targets.map((target) => {
      const { spread, width, published } = target;
      return [target.name, target.unit, whole(spread.all.n), short(spread.all.median), short(spread.female.median), short(spread.male.median),
        short(width.median), short(target.expected_mae), short(published.mae), short(published.icc ?? published.auc)];
    });
    return h("details", {}, h("summary", {}, "All targets as a table"), table("Medians by sex, and accuracy", ["Target", "Unit", ">Scans",
      ">Median", ">Women", ">Men", ">Half width of interval", ">Expected MAE", ">Published MAE", ">Published ICC or AUC"], rows));
  }

  // -- histograms

  addHistogram(name, plot, lines, panel) {
    if (!this.store.column(name)?.histogram) {
      plot.replaceChildren("nothing to draw");
      return;
    }
    const brush = (range) => this.selection.setFilter(name, range);
    this.histograms.set(name, new Histogram(this.store, name, plot, { lines, brush }));
    panel.append(this.rangeControl(name));
    if (this.selection.active) this.updatePlot(name);
  }

  /** The same filter for who does not use a pointer. */
  rangeControl(name) {
    const { title } = this.store.column(name);
    const field = (words) => h("input", { type: "number", step: "any", "aria-label": `${title}: ${words}`, placeholder: words });
    const low = field("from"), high = field("to");
    const form = h("form", { class: "range" }, low, high, h("button", { type: "submit", "aria-label": `Filter by ${title}` }, "Filter"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = low.value !== "" || high.value !== "";
      this.selection.setFilter(name, given ? { low: low.value === "" ? -Infinity : Number(low.value), high: high.value === "" ? Infinity : Number(high.value) } : null);
    });
    return form;
  }

  updatePlots() {
    for (const name of this.histograms.keys()) this.updatePlot(name);
  }

  /** Counts what a filter would, so that the browser has compiled it before the first one. */
  rehearse() {
    const name = [...this.histograms.keys()].find((known) => this.store.ready.has(known));
    for (let k = 0; name && k < 3; k++) countChosen(this.store, name, this.selection.find([[name, { low: -Infinity, high: Infinity }]]));
  }

  async updatePlot(name) {
    const histogram = this.histograms.get(name);
    if (!this.selection.filters.has(name)) histogram.clearBrush();
    if (!this.selection.active) {
      histogram.update(null);
      return;
    }
    if (!inView(histogram.target)) {
      whenVisible(histogram.target, () => this.histograms.get(name) === histogram && this.updatePlot(name));
      return;
    }
    await this.store.loadAll([name, "sex"]);
    histogram.update(this.selection.active ? this.selection.chosen : null);
  }

  // -- quality

  drawQuality() {
    const { head, store } = this;
    const measures = [...store.columns.keys()].filter((name) => name.startsWith("m:") && store.column(name).histogram && !/_\d+(_confidence)?$/.test(name));
    const panels = h("div", { class: "panels" });
    const add = (name, lines, facts) => {
      const column = store.column(name), plot = h("div", { class: "plot" });
      const panel = h("article", { class: "panel" }, h("h4", { title: column.about }, column.title, h("span", { class: "unit" }, ` ${column.unit}`)),
        h("p", { class: "facts" }, facts), plot);
      whenVisible(panel, () => this.addHistogram(name, plot, lines, panel));
      panels.append(panel);
    };
    if (store.has("ood")) add("ood", [head.oodThreshold].filter((v) => v), `limit ${head.oodThreshold ?? "–"} %: how unusual a scan looks to the networks`);
    for (const name of measures) {
      const limits = head.limits[name.slice(2)] ?? [];
      const lines = limits.flatMap(({ below, above }) => [below, above]).filter((v) => v !== null);
      add(name, lines, limits.map(({ code, words, level, count }) => `${code} (${level}): ${words}; ${scans(count)}`).join(" · ") || "no limit");
    }
    if (panels.children.length) {
      this.section("quality", "Image quality and outliers",
        h("p", { class: "about" }, "Upright lines are limits that hold for every scan alike; relative limits depend on body size and are in words."), panels);
    }
  }

  // -- labels

  drawAgreement() {
    const { agreement } = this.head;
    if (!agreement) return;
    const continuous = agreement.targets.filter((target) => target.kind !== "binary");
    const binary = agreement.targets.filter((target) => target.kind === "binary");
    const parts = [];
    const worst = continuous.some((target) => target.worst);
    if (continuous.length) {
      parts.push(table("Agreement with labels", ["Target", "Unit", ">Scans", ">ICC", ">R²", ">MAE", ">Bias", ">Coverage", ">Nominal", ...(worst ? [">Worst errors flagged", ">All flagged"] : [])],
        continuous.map(({ name, unit, n, metrics: m, level, worst: own }) => [name, unit, whole(n), short(m.icc), short(m.r2), short(m.mae), short(m.bias),
          percent(m.coverage, 1), percent(level), ...(own ? [`${own.flagged} of ${own.n}`, percent(own.usual, 1)] : [])])));
    }
    if (binary.length) {
      parts.push(table("Agreement of 0/1 targets with labels", ["Target", ">Scans", ">AUROC", ">Brier", ">Calibration error", ">Calibration slope"],
        binary.map(({ name, n, metrics: m }) => [name, whole(n), short(m.auroc), short(m.brier), short(m.calibration_error), short(m.calibration_slope)])));
    }
    const panels = h("div", { class: "panels" });
    for (const target of agreement.targets) panels.append(this.agreementPanel(target));
    this.section("agreement", "Agreement and calibration", h("p", { class: "about" },
      worst ? "The worst errors are the largest 1 % (at least 5). Bootstrap intervals: ukb-infer evaluate." : "Bootstrap intervals and more metrics are in MODULE.md."), ...parts, panels);
  }

  agreementPanel(target) {
    const { name, unit, curve, points, worst } = target;
    const left = h("div", { class: "plot" }), right = h("div", { class: "plot" });
    const panel = h("article", { class: "panel wide" }, h("h4", {}, name, h("span", { class: "unit" }, ` ${unit}`)), h("div", { class: "pair" }, left, right));
    if (worst) {
      const why = worst.reasons.map(([code, count]) => `${code} ${count}`).join(", ");
      panel.append(h("p", { class: "facts" }, `Worst errors: ${worst.flagged} of ${worst.n} flagged${why ? ` (${why})` : ""}. `,
        worst.rows.map((row, k) => h("button", { type: "button", class: "link", "aria-label": `Open the scan with error ${short(worst.errors[k])} of ${name}`,
          onclick: () => this.open(row) }, short(worst.errors[k]))).flatMap((button) => [button, " "])));
    }
    if (!points) left.remove();
    whenVisible(panel, () => {
      if (points) linePlot(left, { x: points.label, lines: [{ values: points.estimate, stroke: "chosen", dots: true }], label: `label, ${unit}`, up: "estimate", diagonal: true,
        words: `${name}: estimates against labels` });
      if (curve && curve.nominal.length) linePlot(right, { x: curve.nominal, lines: [{ values: curve.observed, stroke: "chosen" }], diagonal: true,
        label: points ? "nominal coverage" : "predicted probability", up: "observed", words: `${name}: ${points ? "observed against nominal coverage" : "observed frequency against probability"}` });
    });
    return panel;
  }

  drawVisits() {
    const { visits } = this.head;
    if (!visits.length) return;
    this.section("visits", "From visit to visit", h("p", { class: "about" }, "Participants scanned at the first and the repeat visit. ",
      "“Beyond” is the share of changes larger than the intervals of both visits explain."), table("Change of estimates between visits",
      ["Target", "Unit", ">People", ">Mean change", ">SD", ">Interval of a change", ">Beyond"],
      visits.map((v) => [v.name, v.unit, whole(v.n), short(v.mean), short(v.sd), `± ${short(v.half)}`, percent(v.beyond, 1)])));
  }
}

function inView(element) {
  const box = element.getBoundingClientRect();
  return box.bottom > -200 && box.top < innerHeight + 200;
}

