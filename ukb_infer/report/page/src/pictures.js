// Pictures of scans: sheets of a hundred, in the page or in the folder beside it.

import { takeBytes } from "./store.js";

export class Pictures {
  constructor(head, store) {
    Object.assign(this, head.pictures, { store, folder: head.folder, maps: head.saliency, sheets: new Map() });
    this.each = this.columns * this.rows;
  }

  get any() { return this.store.has("picture"); }

  load() { return this.store.loadAll(["picture"]); }

  has(row) { return this.any && this.store.value("picture", row) === "yes"; }

  sheet(number) {
    if (!this.sheets.has(number)) {
      const beside = `${this.folder.split("/").map(encodeURIComponent).join("/")}/sheet-${String(number).padStart(5, "0")}.jpg`;
      this.sheets.set(number, this.folder ? beside : URL.createObjectURL(new Blob([takeBytes(`sheet-${number}`)], { type: "image/jpeg" })));
    }
    return this.sheets.get(number);
  }

  /** Saliency maps of a scan: target and address of each. */
  mapsOf(row) {
    return this.maps.flatMap(([own, target], k) => (own === row ? [[target, this.map(k)]] : []));
  }

  map(number) {
    const id = `map-${number}`;
    if (!this.sheets.has(id)) this.sheets.set(id, URL.createObjectURL(new Blob([takeBytes(id)], { type: "image/jpeg" })));
    return this.sheets.get(id);
  }

  /** Shows one channel of a scan as an element's background, `size` pixels wide. */
  show(element, row, channel, size) {
    const place = row % this.each, line = Math.floor(place / this.columns), column = place % this.columns;
    const lines = Math.ceil(Math.min(this.each, this.store.rows - (row - place)) / this.columns);
    const across = this.columns * this.channels.length;
    element.style.width = element.style.height = `${size}px`;
    element.style.backgroundImage = `url("${this.sheet(Math.floor(row / this.each))}")`;
    element.style.backgroundSize = `${across * size}px ${lines * size}px`;
    element.style.backgroundPosition = `-${(column * this.channels.length + channel) * size}px -${line * size}px`;
  }
}
