// The columns of the page: decoded when they are first needed, as typed arrays of small integers.
// Written by report/packing.py.

const ALPHABET = Array.from({ length: 92 }, (_, k) => String.fromCharCode(35 + k))
  .filter((c) => !"&'<>\\`/".includes(c)).slice(0, 85);
const PLACES = new Uint8Array(128);
ALPHABET.forEach((c, k) => { PLACES[c.charCodeAt(0)] = k; });

/** Bytes of an element that report/html.py wrote; the element is removed. */
export function takeBytes(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = element.textContent;
  const bytes = new Uint8Array((text.length / 5) * 4);
  const view = new DataView(bytes.buffer);
  for (let from = 0, to = 0; from < text.length; to += 4) {
    let value = 0;
    for (let k = 0; k < 5; k++) value = value * 85 + PLACES[text.charCodeAt(from++)];
    view.setUint32(to, value);
  }
  const size = Number(element.dataset.size);
  element.remove();
  return bytes.subarray(0, size);
}

async function inflate(bytes) {
  // a Blob would be kept by the browser's own process, too
  const stream = new ReadableStream({ start(control) { control.enqueue(bytes); control.close(); } });
  return new Uint8Array(await new Response(stream.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
}

/** Bytes in planes, all low ones first, to an array of integers. */
function joinPlanes(bytes, width) {
  if (width === 1) return bytes;
  const count = bytes.length / width;
  const codes = width === 2 ? new Uint16Array(count) : new Uint32Array(count);
  for (let plane = 0; plane < width; plane++) {
    for (let k = 0; k < count; k++) codes[k] |= bytes[plane * count + k] << (8 * plane);
  }
  return codes;
}

export class Store {
  constructor(head) {
    this.rows = head.rows;
    this.columns = new Map(head.columns.map((column) => [column.name, column]));
    this.loading = new Map();
    this.ready = new Map();
  }

  has(name) { return this.columns.has(name); }

  column(name) { return this.columns.get(name); }

  /** Codes of numbers or words, or lines of text. */
  load(name) {
    if (!this.loading.has(name)) {
      this.loading.set(name, this.read(name).then((data) => { this.ready.set(name, data); return data; }));
    }
    return this.loading.get(name);
  }

  loadAll(names) { return Promise.all(names.filter((name) => this.has(name)).map((name) => this.load(name))); }

  /** Decodes columns one by one while the browser has nothing else to do, so that no filter waits for them. */
  async warm(names) {
    const idle = globalThis.requestIdleCallback ?? ((done) => setTimeout(done, 20));
    for (const name of names) {
      if (!this.has(name) || this.ready.has(name)) continue;
      await new Promise((done) => idle(done));
      await this.load(name);
    }
  }

  async read(name) {
    const column = this.columns.get(name);
    const bytes = await inflate(takeBytes(`c-${name}`));
    return column.kind === "text" ? new TextDecoder().decode(bytes).split("\n") : joinPlanes(bytes, column.bytes);
  }

  /** Number that a code stands for. */
  number(name, code) {
    if (code === 0) return NaN;
    const { low, step, log } = this.columns.get(name);
    const value = low + (code - 1) * step;
    return log ? Math.exp(value) : value;
  }

  /** Nearest code of a number, between 1 and the last. */
  code(name, value) {
    const { low, step, log } = this.columns.get(name);
    return (((log ? Math.log(Math.max(value, 1e-300)) : value) - low) / step) + 1;
  }

  /** Value of a loaded column in a row: a number, NaN where missing, or text. */
  value(name, row) {
    const column = this.columns.get(name), data = this.ready.get(name);
    if (!column || !data) return undefined;
    if (column.kind === "text") return data[row];
    return column.kind === "words" ? column.words[data[row]] : this.number(name, data[row]);
  }

  /** As text, with no more digits than the page holds. */
  text(name, row) {
    const value = this.value(name, row);
    if (typeof value !== "number") return value ?? "";
    return Number.isNaN(value) ? "" : this.format(name, value);
  }

  format(name, value) {
    const { step, log } = this.columns.get(name);
    const unit = log ? Math.abs(value) * step : step;
    if (Math.abs(value) < 0.5 * unit) return "0";
    const decimals = Math.min(6, Math.max(0, Math.ceil(-Math.log10(unit || 1) - 0.3)));
    const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value) || 1)));
    return value.toFixed(Math.min(decimals, digits));
  }
}

/** A number with three significant digits, for aggregates. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size === 0 ? "0" : Number(value.toPrecision(3)).toString();
}

export const whole = (value) => value.toLocaleString("en");
