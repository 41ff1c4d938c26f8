// Puts the page together: what needs no columns at once, the rest when the document is complete.

import { byId, h } from "./dom.js";
import { Cohort } from "./cohort.js";
import { Mosaic } from "./mosaic.js";
import { Pictures } from "./pictures.js";
import { redrawAll } from "./plots.js";
import { Ratings } from "./ratings.js";
import { ScanView } from "./scan.js";
import { Selection } from "./selection.js";
import { Store, short } from "./store.js";
import { drawSummary } from "./summary.js";
import { ScanTable } from "./table.js";

const head = JSON.parse(byId("head").textContent);
byId("head").remove();
const store = new Store(head);
const selection = new Selection(store);
const views = {};
const open = (row) => views.scan?.open(row);

if (head.warning) byId("warning").append(h("p", { role: "note" }, head.warning));
byId("made").textContent = [
  (head.modules ?? []).map(({ name, version }) => `${name} ${version}`).join(", "),
  head.level ? `intervals at ${short(100 * head.level)} %` : "", `ukb-infer ${head.version}`,
].filter(Boolean).join(" · ");
const single = !head.card && !head.summary; // a page of single scans
if (head.summary) drawSummary(head.summary);
else views.cohort = new Cohort(head, store, selection, open);
if (!single) {
  byId("cohort-title").textContent = head.card ? "Evaluation" : "Cohort";
  for (const part of document.querySelectorAll(".scans-only, #bar, #scans, #mosaic, #counts, nav")) part.hidden = true;
}

function drawFilters() {
  const chips = [...selection.filters].map(([name, filter]) => {
    const { title, unit } = store.column(name);
    const range = () => `${title} ${short(filter.low)} to ${short(filter.high)} ${unit}`;
    const words = filter.label ?? (Number.isFinite(filter.low) ? (Number.isFinite(filter.high) ? range() : `${title} at least ${short(filter.low)} ${unit}`) : `${title} at most ${short(filter.high)} ${unit}`);
    return h("li", {}, h("button", { type: "button", "aria-label": `Remove the filter ${words}`, onclick: () => selection.setFilter(name, null) }, words, " ×"));
  });
  if (selection.active) chips.push(h("li", {}, h("button", { type: "button", onclick: clear }, "Clear all")));
  byId("filters").replaceChildren(...chips);
  byId("bar-count").textContent = byId("scan-count").textContent;
}

function clear() {
  byId("search").value = "";
  selection.clear();
}

function begin() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  if (single) showScans();
  document.documentElement.dataset.ready = "yes";
}

function showScans() {
  const pictures = new Pictures(head, store), ratings = new Ratings(head, store);
  views.scan = new ScanView(head, store, selection, pictures, ratings);
  views.table = new ScanTable(store, selection, open);
  selection.addEventListener("change", drawFilters);
  let timer;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => selection.setSearch(event.target.value), 80);
  });
  if (head.anonymous) {
    byId("mosaic-ratings").hidden = true;
    byId("mosaic-anonymous").hidden = false;
  }
  new Mosaic(head, store, selection, pictures, ratings, open);
  globalThis.ukbInferReport = { head, store, selection, ratings, views };
  addEventListener("load", prepare);
}

/** What a first filter, search or sort would have to wait for. */
async function prepare() {
  await store.warm(["scan", "sex", "reasons", "status", "level"]);
  if (store.ready.has(selection.sorting.name)) selection.order();
  await store.warm(store.columns.keys());
  views.cohort.rehearse();
  performance.mark("warm");
  document.documentElement.dataset.warm = "yes";
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
