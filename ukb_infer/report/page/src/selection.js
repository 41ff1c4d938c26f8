// Which scans are chosen, and in which order: filters on columns, a search, one sorting.

import { announce } from "./dom.js";
import { whole } from "./store.js";

export class Selection extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.filters = new Map();
    this.search = "";
    this.sorting = { name: "scan", down: false };
    this.orders = new Map();
    this.mask = new Uint8Array(store.rows).fill(1);
    this.chosen = Uint32Array.from({ length: store.rows }, (_, k) => k);
    this.turn = 0;
  }

  get active() { return this.filters.size > 0 || this.search !== ""; }

  /** Keep numbers from low to high (of the column), or rows whose word is among some; null removes the filter. */
  setFilter(name, filter) {
    if (filter) this.filters.set(name, filter);
    else this.filters.delete(name);
    return this.update();
  }

  clear() {
    this.filters.clear();
    this.search = "";
    return this.update();
  }

  setSearch(text) {
    this.search = text.trim().toLowerCase();
    return this.update();
  }

  sort(name, down) {
    this.sorting = { name, down };
    return this.update();
  }

  async update() {
    const turn = ++this.turn;
    const searched = this.search ? ["scan", "reasons", "message", "path"] : [];
    await this.store.loadAll([...this.filters.keys(), this.sorting.name, ...searched]);
    if (turn !== this.turn) return;
    const began = performance.now();
    this.chosen = this.find(this.filters);
    const count = this.chosen.length;
    this.dispatchEvent(new CustomEvent("change", { detail: began }));
    announce(`${whole(count)} of ${whole(this.store.rows)} scans`);
  }

  /** Rows that pass filters and search, in order. */
  find(filters) {
    this.mask.fill(1);
    for (const [name, filter] of filters) this.apply(name, filter);
    if (this.search) this.applySearch();
    const order = this.order();
    let count = 0;
    const chosen = new Uint32Array(order.length);
    for (let k = 0; k < order.length; k++) if (this.mask[order[k]]) chosen[count++] = order[k];
    return chosen.subarray(0, count);
  }

  apply(name, filter) {
    const codes = this.store.ready.get(name), { mask } = this;
    if (filter.words) {
      const keep = this.store.column(name).words.map((word) => filter.words(word));
      for (let k = 0; k < codes.length; k++) if (!keep[codes[k]]) mask[k] = 0;
      return;
    }
    const from = Math.max(1, Math.ceil(this.store.code(name, filter.low) - 1e-6));
    const to = Math.floor(this.store.code(name, filter.high) + 1e-6);
    for (let k = 0; k < codes.length; k++) if (codes[k] < from || codes[k] > to) mask[k] = 0;
  }

  applySearch() {
    const { store, search, mask } = this;
    const found = new Uint8Array(store.rows);
    for (const name of ["scan", "message"]) {
      const lines = store.ready.get(name);
      if (lines) for (let k = 0; k < lines.length; k++) if (mask[k] && lines[k].toLowerCase().includes(search)) found[k] = 1;
    }
    for (const name of ["reasons", "path"]) {
      const codes = store.ready.get(name);
      if (!codes) continue;
      const hit = store.column(name).words.map((word) => word.toLowerCase().includes(search));
      if (hit.includes(true)) for (let k = 0; k < codes.length; k++) if (hit[codes[k]]) found[k] = 1;
    }
    for (let k = 0; k < mask.length; k++) mask[k] &= found[k];
  }

  /** All rows as sorted; missing values last, equal ones in the order of the run. */
  order() {
    const { name, down } = this.sorting, key = `${name} ${down}`;
    if (!this.orders.has(key)) {
      if (this.orders.size > 8) this.orders.delete(this.orders.keys().next().value);
      this.orders.set(key, sortedRows(this.store, name, down));
    }
    return this.orders.get(key);
  }
}

function sortedRows(store, name, down) {
  const data = store.ready.get(name), column = store.column(name);
  const rows = new Uint32Array(store.rows);
  if (column.kind === "text") {
    const order = Array.from(rows, (_, k) => k);
    const sign = down ? -1 : 1;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const sorted = data.every((line, k) => k === 0 || data[k - 1] <= line);
    if (sorted && down) order.reverse();
    else if (!sorted) order.sort((a, b) => sign * compare(data[a], data[b]) || a - b);
    rows.set(order);
    return rows;
  }
  const ranks = rankCodes(column, data, down);
  const starts = new Uint32Array(ranks.most + 2);
  for (let k = 0; k < data.length; k++) starts[ranks.of(data[k]) + 1]++;
  for (let k = 1; k < starts.length; k++) starts[k] += starts[k - 1];
  for (let k = 0; k < data.length; k++) rows[starts[ranks.of(data[k])]++] = k;
  return rows;
}

function rankCodes(column, codes, down) {
  if (column.kind === "words") {
    const order = column.words.map((word, k) => [word, k]).filter(([word]) => word).sort((a, b) => (a[0] < b[0] ? -1 : 1));
    if (down) order.reverse();
    const rank = new Uint32Array(column.words.length).fill(order.length);
    order.forEach(([, code], place) => { rank[code] = place; });
    return { most: order.length, of: (code) => rank[code] };
  }
  let most = 0;
  for (let k = 0; k < codes.length; k++) if (codes[k] > most) most = codes[k];
  return { most, of: (code) => (code === 0 ? most : down ? most - code : code - 1) };
}
