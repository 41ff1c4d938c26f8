// Ratings of scans by whoever looks at them: kept in the browser, exported as a CSV for --exclude and read_estimates.

import { announce, download, h } from "./dom.js";

export const RATINGS = { use: "u", exclude: "x", unsure: "s" };
const KEYS = { u: "use", x: "exclude", s: "unsure", 1: "use", 2: "exclude", 3: "unsure" };
const NAME = /^(\d+)_\d+_(\d+)_(\d+)$/;

export class Ratings extends EventTarget {
  constructor(head, store) {
    super();
    Object.assign(this, { store, head, place: `ukb-infer-ratings-${head.key}`, given: new Map() });
    try {
      this.given = new Map(JSON.parse(localStorage.getItem(this.place) ?? "[]"));
    } catch { /* no storage: ratings last as long as the page */ }
  }

  of(row) { return this.given.get(row) ?? { rating: "", note: "" }; }

  rate(row, rating) {
    this.change(row, { ...this.of(row), rating: this.of(row).rating === rating ? "" : rating });
    announce(this.of(row).rating || "no rating");
  }

  change(row, value) {
    if (value.rating || value.note) this.given.set(row, value);
    else this.given.delete(row);
    try {
      localStorage.setItem(this.place, JSON.stringify([...this.given]));
    } catch { /* full, or forbidden */ }
    this.dispatchEvent(new Event("change"));
  }

  /** Rates by a key; whether it was one. */
  key(row, key) {
    if (!(key in KEYS)) return false;
    this.rate(row, KEYS[key]);
    return true;
  }

  controls(row, redraw) {
    const { rating, note } = this.of(row);
    const buttons = Object.entries(RATINGS).map(([name, key]) => h("button", { type: "button", class: `rate ${name}`, "aria-pressed": String(rating === name),
      onclick: () => { this.rate(row, name); redraw(); } }, name, h("kbd", {}, key)));
    const field = h("input", { type: "text", value: note, maxlength: "500" });
    field.addEventListener("change", () => this.change(row, { ...this.of(row), note: field.value }));
    return h("div", { class: "rating", role: "group", "aria-label": "Rating" }, buttons, h("label", {}, "Note ", field));
  }

  counts() {
    const counts = { use: 0, exclude: 0, unsure: 0 };
    for (const { rating } of this.given.values()) if (rating) counts[rating]++;
    return counts;
  }

  async csv() {
    await this.store.load("scan");
    const rows = [...this.given].sort(([a], [b]) => a - b).map(([row, { rating, note }]) => {
      const scan = this.store.text("scan", row), [, eid = "", instance = "", array = ""] = NAME.exec(scan) ?? [];
      return [scan, eid, instance, array, rating, note].map(cell).join(",");
    });
    return ["scan,eid,instance,array,rating,note", ...rows, ""].join("\n");
  }

  async export() { download("ratings.csv", await this.csv()); }
}

/** A cell that no spreadsheet takes for a formula. */
function cell(text) {
  const plain = text.replace(/[\r\n\t]+/g, " ");
  const safe = /^[=+\-@]/.test(plain) ? `'${plain}` : plain;
  return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
