// DOM helpers. Text from files and the server is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Creates an element. `attributes` become attributes, except `on` ({event: listener}), `style`
 * ({property: value}) and `dataset`; null and false omit an attribute. Children are elements
 * and text; null and false are skipped.
 */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** Like `h`, for SVG elements. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, { on = {}, style = {}, dataset = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  Object.assign(element.dataset, dataset);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(
    ...children
      .flat()
      .filter(
        (child) => child !== null && child !== false && child !== true && child !== undefined,
      ),
  );
  return element;
}

/** Sets an element's text only if it differs, to avoid a needless relayout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const keyedChildren = new WeakMap(); // element -> Map of key -> child
const invalidated = new WeakSet();

/** Makes `reconcile` rebuild a child whose key is unchanged, as when its image failed to load. */
export function invalidate(child) {
  invalidated.add(child);
}

/**
 * Reconciles an element's children with `wanted`, a list of [key, make]: children whose key was
 * there before are kept, and with them the keyboard focus. Returns the children in order.
 */
export function reconcile(parent, wanted) {
  const all = [...(keyedChildren.get(parent) ?? [])];
  const known = new Map(all.filter(([, child]) => !invalidated.has(child)));
  const children = new Map(wanted.map(([key, make]) => [key, known.get(key) ?? make()]));
  keyedChildren.set(parent, children);
  for (const [key, child] of all) if (children.get(key) !== child) child.remove();
  let place = parent.firstChild;
  for (const child of children.values()) {
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  return [...children.values()];
}

/**
 * Makes `shown` hold exactly the items in [first, last), in document order: creates those that
 * enter the range and removes those that leave it.
 */
export function renderRange(shown, [first, last], make, parent) {
  for (const [number, item] of shown) {
    if (number < first || number >= last) {
      item.remove();
      shown.delete(number);
    }
  }
  let next = null;
  for (let number = last - 1; number >= first; number--) {
    const item = shown.get(number) ?? make(number);
    const element = item.element ?? item;
    if (!shown.has(number)) parent.insertBefore(element, next);
    shown.set(number, item);
    next = element;
  }
}

/** Shows or hides an element. */
export function setVisible(element, visible) {
  element.hidden = !visible;
}

// On a 16 × 16 grid, stroked in the text colour.
const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  download: "M8 2.5v7.5M4.8 7L8 10.2 11.2 7M3 13.5h10",
  upload: "M8 10V2.5M4.8 5.7L8 2.5l3.2 3.2M3 13.5h10",
  expand: "M9.5 2.5h4v4M6.5 13.5h-4v-4M13.5 2.5L9.3 6.7M2.5 13.5l4.2-4.2",
  left: "M10 3.5L5.5 8l4.5 4.5",
  right: "M6 3.5L10.5 8 6 12.5",
  grid: "M2.5 2.5h4v4h-4zM9.5 2.5h4v4h-4zM2.5 9.5h4v4h-4zM9.5 9.5h4v4h-4z",
  swap: "M3 5.5h9.5M10 3l2.5 2.5L10 8M13 10.5H3.5M6 8l-2.5 2.5L6 13",
  compare: "M8 2v12M2.5 4h3.5v8H2.5zM10 4h3.5v8H10z",
  warning: "M8 2.5L14 13H2zM8 6.5v3M8 11.3v.2",
  page: "M4 2.5h5l3 3v8H4zM9 2.5v3h3M6 8.5h4M6 11h4",
  check: "M3 8.5l3.2 3.2L13 4.8",
  refresh: "M13 8a5 5 0 1 1-1.5-3.5M13 2.5v2.5h-2.5",
};

/** An icon beside or instead of a label; hidden from screen readers. */
export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", class: "lk-icon", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

/** A button; with `label` instead of `text` it shows only its icon. */
export function button({ text = "", label = null, symbol = null, kind = "", title = null, click }) {
  return h(
    "button",
    {
      type: "button",
      class: `lk-button ${kind}`.trim(),
      "aria-label": label,
      title: title ?? label,
      on: { click },
    },
    symbol && icon(symbol),
    text && h("span", {}, text),
  );
}

/** A link to a comparison's report, styled as a button; the caller sets its `href`. */
export function reportLink() {
  const title = "Images, scores, losses and recipes on one page, in a new tab";
  const opens = { target: "_blank", rel: "noopener noreferrer" };
  return h("a", { class: "lk-button", title, ...opens }, icon("page"), h("span", {}, "Report"));
}

/** Loads style sheets of the pack, each only once. */
export function loadStyle(...names) {
  for (const name of ["base", ...names]) {
    const href = new URL(`../css/${name}.css`, import.meta.url).href;
    const known = [...document.querySelectorAll("link[data-likeness]")];
    if (known.some((link) => link.href === href)) continue;
    document.head.append(h("link", { rel: "stylesheet", href, dataset: { likeness: name } }));
  }
}
