// All chosen scans as pictures, rated by keys.

import { byId, h, keepChildren } from "./dom.js";
import { whole } from "./store.js";
import { virtualize } from "./table.js";

const GAP = 8, CAPTION = 22;

export class Mosaic {
  constructor(head, store, selection, pictures, ratings, open) {
    Object.assign(this, { head, store, selection, pictures, ratings, open, at: 0, channel: 0, size: 128, version: 0 });
    this.scroller = byId("mosaic-scroll");
    this.canvas = byId("mosaic-canvas");
    this.virtual = virtualize(this.scroller, { size: this.size + CAPTION + GAP, overscan: 2 }, () => this.draw());
    const channel = byId("mosaic-channel");
    channel.append(...head.pictures.channels.map((name, k) => h("option", { value: k }, name)));
    channel.addEventListener("change", () => { this.channel = Number(channel.value); this.drawAgain(); });
    byId("ratings-export").addEventListener("click", () => ratings.export());
    this.scroller.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.refresh()).observe(this.scroller);
    selection.addEventListener("change", () => { this.at = 0; this.refresh(); });
    ratings.addEventListener("change", () => this.drawAgain());
    pictures.load().then(() => store.load("scan")).then(() => this.refresh());
  }

  get across() { return Math.max(1, Math.floor((this.scroller.clientWidth - GAP) / (this.size + GAP))); }

  refresh() {
    this.virtual.setCount(Math.ceil(this.selection.chosen.length / this.across));
    this.drawAgain();
  }

  /** Makes the tiles in view anew. */
  drawAgain() {
    this.version += 1;
    this.draw();
  }

  draw() {
    if (!this.virtual || !this.store.ready.has("scan")) return;
    const { chosen } = this.selection, { across } = this;
    this.canvas.style.height = `${this.virtual.total()}px`;
    const focused = this.canvas.contains(document.activeElement);
    const tiles = this.virtual.items().flatMap((item) => {
      const first = item.index * across;
      return Array.from(chosen.subarray(first, first + across), (row, k) => ({ row, index: first + k, top: item.start, k }));
    });
    keepChildren(this.canvas, tiles.map(({ index }) => `${this.version} ${index}`),
      (n) => this.tile(tiles[n].row, tiles[n].index, tiles[n].top, tiles[n].k));
    this.markReached();
    if (focused) this.focus();
    const counts = this.ratings.counts();
    byId("ratings-count").textContent = Object.entries(counts).map(([name, count]) => `${whole(count)} ${name}`).join(", ");
  }

  tile(row, index, top, column) {
    const { rating, note } = this.ratings.of(row), name = this.store.text("scan", row);
    const picture = h("span", { class: "picture", "aria-hidden": "true" });
    if (this.pictures.has(row)) this.pictures.show(picture, row, this.channel, this.size);
    else {
      picture.style.cssText = `width:${this.size}px;height:${this.size}px`;
      picture.classList.add("none");
      picture.textContent = "no picture";
    }
    return h("button", { type: "button", class: `mosaic-tile ${rating}`, "data-index": index,
      style: `top:${top}px;left:${GAP + column * (this.size + GAP)}px;width:${this.size}px`,
      "aria-label": `${name}${rating ? `, ${rating}` : ", not rated"}${note ? `, note: ${note}` : ""}`,
      onclick: () => { this.at = index; this.open(row); }, onfocus: () => this.take(index) },
    picture, h("span", { class: "caption" }, rating ? `${{ use: "✓", exclude: "✕", unsure: "?" }[rating]} ${name}` : name));
  }

  /** Makes a tile the one that Tab reaches. */
  take(index) {
    if (index === this.at) return;
    this.at = index;
    this.markReached();
  }

  markReached() {
    for (const tile of this.canvas.children) tile.tabIndex = Number(tile.dataset.index) === this.at ? 0 : -1;
  }

  focus() { this.canvas.querySelector(`[data-index="${this.at}"]`)?.focus({ preventScroll: true }); }

  onKey(event) {
    const { chosen } = this.selection;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across, Home: -this.at, End: chosen.length - 1 - this.at };
    if (event.key in moves) {
      this.at = Math.min(chosen.length - 1, Math.max(0, this.at + moves[event.key]));
      this.virtual.scrollTo(Math.floor(this.at / this.across));
      requestAnimationFrame(() => { this.draw(); this.focus(); });
    } else if (this.head.anonymous) return;
    else if (event.key === "n") {
      const note = prompt("Note", this.ratings.of(chosen[this.at]).note);
      if (note !== null) this.ratings.change(chosen[this.at], { ...this.ratings.of(chosen[this.at]), note });
    } else if (event.ctrlKey || event.metaKey || event.altKey || !this.ratings.key(chosen[this.at], event.key)) return;
    event.preventDefault();
  }
}
