// The table of scans: real rows of what is in view, between two empty ones as tall as the rest.

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
import { byId, h, keepChildren } from "./dom.js";
import { whole } from "./store.js";

const ROW_PX = 34;

/** A virtualizer of TanStack without a framework: `draw` is called whenever what is in view changes. */
export function virtualize(element, options, draw) {
  const settings = (count) => ({
    count, getScrollElement: () => element, estimateSize: () => options.size, overscan: options.overscan ?? 6,
    scrollToFn: elementScroll, observeElementRect, observeElementOffset, onChange: () => draw(),
  });
  const virtual = new Virtualizer(settings(0));
  virtual._didMount();
  virtual._willUpdate();
  return {
    items: () => virtual.getVirtualItems(),
    total: () => virtual.getTotalSize(),
    scrollTo: (index) => virtual.scrollToIndex(index, { align: "auto" }),
    setCount(count) {
      virtual.setOptions(settings(count));
      virtual._willUpdate();
      virtual.measure();
    },
  };
}

export class ScanTable {
  constructor(store, selection, open) {
    Object.assign(this, { store, selection, open, version: 0 });
    const first = ["status", "level", "reasons", "sex", "age", "ood"].filter((name) => store.has(name));
    const estimates = [...store.columns.keys()].filter((name) => name.startsWith("t:"));
    const measures = [...store.columns.keys()].filter((name) => name.startsWith("m:"));
    this.shown = [...first, ...estimates.slice(0, 5), ...(estimates.length ? [] : measures.slice(0, 5))];
    this.scroller = byId("scan-scroll");
    this.virtual = virtualize(this.scroller, { size: ROW_PX }, () => this.draw());
    this.makeChooser();
    selection.addEventListener("change", () => this.refresh());
    this.setColumns(this.shown);
  }

  makeChooser() {
    const names = [...this.store.columns.keys()].filter((name) => !["scan", "picture"].includes(name));
    const boxes = names.map((name) => {
      const { title } = this.store.column(name);
      const box = h("input", { type: "checkbox", value: name });
      box.checked = this.shown.includes(name);
      return h("label", { class: "choice" }, box, title);
    });
    const list = h("div", { class: "choices" }, boxes);
    list.addEventListener("change", () => {
      const chosen = [...list.querySelectorAll("input:checked")].map((box) => box.value);
      this.setColumns(chosen);
    });
    byId("column-chooser").append(list);
  }

  async setColumns(names) {
    await this.store.loadAll(["scan", ...names]);
    this.shown = names;
    this.drawHeader();
    this.refresh();
  }

  refresh() {
    const { chosen } = this.selection;
    byId("scan-count").textContent = `${whole(chosen.length)} of ${whole(this.store.rows)} scans`;
    byId("scan-table").setAttribute("aria-rowcount", chosen.length + 1);
    this.version += 1;
    this.virtual.setCount(chosen.length);
    this.markSorting();
    this.draw();
  }

  drawHeader() {
    const heads = ["scan", ...this.shown].map((name) => {
      const column = this.store.column(name);
      const button = h("button", { type: "button", title: column.about || null, onclick: () => this.sortBy(name) },
        column.title, column.unit ? h("span", { class: "unit" }, ` ${column.unit}`) : null,
        h("span", { class: "arrow", "aria-hidden": "true" }));
      return h("th", { scope: "col", "data-name": name, class: column.kind === "number" ? "number" : null }, button);
    });
    byId("scan-head").replaceChildren(h("tr", { "aria-rowindex": "1" }, heads));
    this.markSorting();
  }

  markSorting() {
    const { name, down } = this.selection.sorting;
    for (const th of byId("scan-head").querySelectorAll("th")) {
      const own = th.dataset.name === name;
      th.setAttribute("aria-sort", own ? (down ? "descending" : "ascending") : "none");
      th.querySelector(".arrow").textContent = own ? (down ? " ▼" : " ▲") : "";
    }
  }

  sortBy(name) {
    const { sorting } = this.selection;
    return this.selection.sort(name, sorting.name === name ? !sorting.down : false);
  }

  draw() {
    if (!this.virtual) return;
    const items = this.virtual.items(), { chosen } = this.selection;
    const span = this.shown.length + 1;
    const gap = (px) => h("tr", { "aria-hidden": "true", class: "gap" },
      h("td", { colspan: span, style: `height:${px}px` }));
    const shown = items.filter((item) => item.index < chosen.length).map((item) => item.index);
    const focused = this.scroller.contains(document.activeElement) ? document.activeElement.dataset.row : null;
    const before = items.length ? items[0].start : 0;
    const after = items.length ? this.virtual.total() - items.at(-1).end : 0;
    const keys = [`before ${before} ${span}`, ...shown.map((index) => `${this.version} ${index}`), `after ${after} ${span}`];
    keepChildren(byId("scan-body"), keys, (k) => {
      if (k === 0) return gap(before);
      return k > shown.length ? gap(after) : this.makeRow(shown[k - 1], chosen[shown[k - 1]]);
    });
    if (focused !== null && focused !== undefined) {
      this.scroller.querySelector(`button[data-row="${focused}"]`)?.focus({ preventScroll: true });
    }
  }

  makeRow(index, row) {
    const name = this.store.text("scan", row);
    const button = h("button", { type: "button", class: "link", "data-row": row, "aria-label": `Open ${name}` }, name);
    const cells = this.shown.map((column) => {
      const number = this.store.column(column).kind === "number";
      const text = this.store.text(column, row);
      return h("td", { class: number ? "number" : null, title: text.length > 24 ? text : null }, text);
    });
    const status = this.store.value("status", row) ?? "";
    return h("tr", { "aria-rowindex": index + 2, class: `row ${status}`, onclick: () => this.open(row) },
      h("th", { scope: "row" }, button), cells);
  }
}
