// The page without individual data: rearranged cells of the tables of `ukb-infer summary`, and the tables themselves.

import { addSection, h, table } from "./dom.js";
import { legend, linePlot, whenVisible } from "./plots.js";
import { whole } from "./store.js";

const SEXES = { female: "women", male: "men" };
const shown = (cell) => cell || "–";

export function drawSummary({ rules, people, targets, curves, reasons, associations, tables }) {
  addSection("rules", "What this page holds", h("ul", {}, rules.map((rule) => h("li", {}, rule))));
  if (people.length) {
    addSection("people", "Participants", table("Participants by sex; a dash stands for a group that is too small",
      ["Group", ">All", ">Women", ">Men"], people.map((row) => [row.group, ...["all", "female", "male"].map((sex) => shown(row[sex]))])));
  }
  if (targets.length) drawTargets(targets, curves);
  if (reasons.length) {
    addSection("reasons", "Status, reasons and quality", table("Participants by status, reason and level of quality of their scans",
      ["Code", "Kind", ">Participants", "Meaning", "What to do"], reasons.map((row) => [row.code, row.kind, row.participants, row.meaning, row.advice])));
  }
  if (associations.length) {
    addSection("reported", "Which association to report", table("Estimator to report for each model, and why",
      ["Model", "Family", "Report", "Why"], associations.map(({ model, family, report, why }) => [model, family, report, why])));
  }
  for (const own of tables.filter(({ folded }) => !folded)) addSection(own.name.replace(/\W+/g, "-"), own.title, wholeTable(own));
  addSection("tables", "All numbers", tables.filter(({ folded }) => folded).map((own) => {
    const details = h("details", {}, h("summary", {}, `${own.title} (${own.name}, ${whole(own.count)} rows)`));
    details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(...wholeTable(own)); });
    return details;
  }));
}

function drawTargets(targets, curves) {
  const panels = h("div", { class: "panels" }, targets.map((target) => {
    const { name, unit, by } = target, plot = h("div", { class: "plot" });
    const facts = Object.entries(SEXES).filter(([sex]) => by[sex]?.mean).map(([sex, words]) => `${words}: mean ${by[sex].mean}, sd ${shown(by[sex].sd)}`);
    const panel = h("article", { class: "panel" }, h("h4", {}, name, h("span", { class: "unit" }, ` ${unit}`)),
      h("p", { class: "facts" }, facts.join("; ") || "too few participants"), plot);
    whenVisible(panel, () => drawCurves(name, curves[name], plot));
    return panel;
  }));
  const numbers = targets.map(({ name, unit, by }) => [name, unit,
    ...["all", "female", "male"].flatMap((sex) => ["n", "mean", "sd"].map((part) => shown(by[sex]?.[part])))]);
  addSection("targets", "Targets", [
    h("p", { class: "about" }, "Over age: the median, and thin the 5 and 95 % quantiles, in bands of five years with enough participants."),
    legend(Object.keys(SEXES).map((sex) => [sex, SEXES[sex]])), panels,
    h("details", {}, h("summary", {}, "All targets as a table"), table("Participants, mean and standard deviation", ["Target", "Unit",
      ...["all", "women", "men"].flatMap((who) => [`>n, ${who}`, ">Mean", ">SD"])], numbers)),
  ]);
}

function drawCurves(name, curve, plot) {
  const lines = Object.keys(SEXES).filter((sex) => curve?.[sex]).flatMap((sex) => Object.entries(curve[sex]).map(([level, values]) =>
    ({ values, stroke: sex, dash: sex === "male" ? [5, 3] : undefined, thin: level !== "p50" })));
  if (!lines.some(({ values }) => values.some((value) => value !== null))) {
    plot.replaceChildren("too few participants to draw");
    return;
  }
  linePlot(plot, { x: curve.age, lines, label: "age, years", height: 150, words: `Median and 5 and 95 % quantiles of ${name} over age, women and men` });
}

function wholeTable({ name, columns, numbers, rows, count }) {
  const more = count > rows.length ? h("p", { class: "about" }, `The first ${whole(rows.length)} of ${whole(count)} rows; the others are in ${name}.`) : null;
  return [table(name, columns.map((column, k) => (numbers[k] ? `>${column}` : column)), rows), more].filter(Boolean);
}
