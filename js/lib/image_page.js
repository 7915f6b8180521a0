// A page with one image of a comparison, or two with a divider, and their details.

import { cellOf, imageQuery, thumbnailQuery } from "./comparison.js";
import { button, h, reconcile, setVisible } from "./dom.js";
import { ImageStage } from "./image_stage.js";
import { cellPicker, details, modelButtons } from "./viewer_parts.js";
import { nextCell } from "./virtual_grid.js";

/**
 * `index` is the image, or the right one of two; `other` is the left one, or null.
 * @param getUrl turns a /view query into a URL
 * @param changed called when another image is shown
 */
export class ImagePage {
  index = 0;
  other = null;
  #comparison = null;
  #scores = [];
  #cells = []; // the one or two shown

  constructor(getUrl, changed) {
    this.getUrl = getUrl;
    this.changed = changed;
    this.stage = new ImageStage();
    this.ends = h("div", { class: "lk-ends" });
    this.models = h("div", {
      class: "lk-models",
      role: "group",
      "aria-label": "The same prompt by each model",
    });
    this.details = h("aside", { class: "lk-details", "aria-label": "About this image" });
    this.element = h(
      "div",
      { class: "lk-image-page", tabindex: "-1" },
      h("div", { class: "lk-image-main" }, this.ends, this.stage.element, this.models),
      this.details,
    );
  }

  /** Sets the comparison without showing an image yet. */
  open(comparison, scores) {
    this.#comparison = comparison;
    this.#scores = scores;
    this.#cells = [];
    this.stage.size(comparison.width, comparison.height);
  }

  /** Replaces the scores. */
  setScores(scores) {
    this.#scores = scores;
    if (this.#cells.length) this.details.replaceChildren(...details(this.#cells, scores));
  }

  /** Heading of what is shown: {title, text}. */
  get titles() {
    const b = cellOf(this.#comparison, this.index);
    if (this.other === null) return { title: `${b.label} · ${b.key}`, text: b.prompt };
    const a = cellOf(this.#comparison, this.other);
    const text = a.column === b.column ? a.prompt : `${a.key} | ${b.key}`;
    return { title: `${a.label} | ${b.label}`, text };
  }

  /** Shows one image. */
  single(index) {
    [this.index, this.other] = [index, null];
    const cell = cellOf(this.#comparison, index);
    this.stage.single(this.#imageOf(cell));
    setVisible(this.ends, false);
    this.#showAround([cell]);
  }

  /** Shows two images, left and right of the divider. */
  pair(left, right) {
    [this.other, this.index] = [left, right];
    const [a, b] = [left, right].map((index) => cellOf(this.#comparison, index));
    this.stage.pair(this.#imageOf(a), this.#imageOf(b));
    const swap = () => this.pair(right, left);
    const { activeElement } = document;
    const used = this.ends.contains(activeElement) && activeElement.getAttribute("aria-label");
    this.ends.replaceChildren(
      cellPicker("A", this.#comparison, a, (index) => this.pair(index, right)),
      button({ label: "Swap A and B", symbol: "swap", kind: "plain", click: swap }),
      cellPicker("B", this.#comparison, b, (index) => this.pair(left, index)),
    );
    setVisible(this.ends, true);
    if (used) this.ends.querySelector(`[aria-label="${used}"]`)?.focus({ preventScroll: true });
    this.#showAround([a, b]);
  }

  /** Switches from one image to two, beside the first model's, and back. */
  toggleCompare() {
    if (this.other !== null) return this.single(this.index);
    const columnCount = this.#comparison.columns.length;
    const first = this.index % columnCount;
    const second =
      first + columnCount < this.#comparison.images.length ? first + columnCount : first;
    this.pair(first, this.index === first ? second : this.index);
  }

  /** Toggles between fitting the space and actual size. */
  toggleActual() {
    this.stage.toggleActual();
    this.changed();
  }

  /** Updates whatever shows one of these cells. */
  refresh(indices) {
    if (!indices.some((index) => index === this.index || index === this.other))
      return this.#showModels();
    if (this.other === null) this.single(this.index);
    else this.pair(this.other, this.index);
  }

  /** Handles a key; returns whether it did anything. */
  key({ key, target }) {
    if (key.toLowerCase() === "z") this.toggleActual();
    else if (key.toLowerCase() === "x" && this.other !== null) this.pair(this.index, this.other);
    else return !this.#usesArrows(target) && this.#step(key);
    return true;
  }

  /** Whether the focused element uses the arrow keys itself. */
  #usesArrows(target) {
    return target.closest("[role=slider]") || (target === this.stage.element && this.stage.actual);
  }

  #step(key) {
    const { rows, columns } = this.#comparison;
    const { row, column } = cellOf(this.#comparison, this.index);
    const target = nextCell({ row, column }, key, rows.length, columns.length, 1);
    if (!target) return false;
    const index = target.row * columns.length + target.column;
    if (this.other === null) this.single(index);
    else this.pair(this.#movedOther(target.column - column), index);
    return true;
  }

  /** Index of the left image moved by `columns`, to keep both on the same prompt. */
  #movedOther(columns) {
    const columnCount = this.#comparison.columns.length;
    const { row, column } = cellOf(this.#comparison, this.other);
    return row * columnCount + Math.max(0, Math.min(columnCount - 1, column + columns));
  }

  #imageOf({ index, label, key, drawn }) {
    return {
      name: `${label}, ${key}`,
      url: drawn && this.getUrl(imageQuery(this.#comparison, index)),
      thumbnail: this.getUrl(thumbnailQuery(this.#comparison, index)),
    };
  }

  #showAround(cells) {
    this.#cells = cells;
    this.#showModels();
    const first = this.models.querySelector("[aria-pressed=true]");
    first?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.details.replaceChildren(...details(cells, this.#scores));
    this.changed();
  }

  #showModels() {
    const { index, other, getUrl } = this;
    // prettier-ignore
    const chosen = new Map(other === null ? [[index, ""]] : [[index, "B"], [other, "A"]]);
    const { column } = cellOf(this.#comparison, index);
    const pick = (picked, event) => this.#pick(picked, event);
    reconcile(
      this.models,
      modelButtons({ comparison: this.#comparison, column, chosen, getUrl, pick }),
    );
  }

  #pick(index, event) {
    if (this.other === null) this.single(index);
    else if (event.shiftKey) this.pair(index, this.index);
    else this.pair(this.other, index);
    this.element.focus({ preventScroll: true });
  }
}
