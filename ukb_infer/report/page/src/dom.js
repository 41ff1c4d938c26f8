// Elements without markup in strings: what comes from a run is always text.

/** An element: attributes, listeners (onclick), children (text or elements). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A part of the page's first section. */
export function addSection(id, title, children) {
  byId("cohort").append(h("section", { id, "aria-labelledby": `${id}-title` }, h("h3", { id: `${id}-title` }, title), children));
}

/** A table from titles and rows of cells; titles that begin with > are of numbers. */
export function table(caption, titles, rows) {
  const right = titles.map((title) => title.startsWith(">"));
  const cell = (tag, content, k, more = {}) => h(tag, { class: right[k] ? "number" : null, ...more }, content);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, titles.map((title, k) => cell("th", title.replace(/^>/, ""), k, { scope: "col" })))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((content, k) =>
        k === 0 ? cell("th", content, k, { scope: "row" }) : cell("td", content, k)))))));
}

let said = 0;
/** Says something to screen readers. */
export function announce(text) {
  byId("live").textContent = text + (said++ % 2 ? "\u00a0" : "");
}

export function download(name, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Leaves an element only children of these keys (text, in order), and makes what is missing. Those that stay are not
    touched: a child replaced between pressing and releasing the button would lose the click. */
export function keepChildren(parent, keys, make) {
  const wanted = new Set(keys);
  for (const child of [...parent.children]) if (!wanted.has(child.dataset.key)) child.remove();
  let at = parent.firstElementChild;
  keys.forEach((key, k) => {
    if (at?.dataset.key === key) at = at.nextElementSibling;
    else {
      const made = make(k);
      made.dataset.key = key;
      parent.insertBefore(made, at);
    }
  });
}
