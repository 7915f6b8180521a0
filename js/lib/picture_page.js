// One picture of a comparison with what is known of it, or two with a divider.

import { cellOf, pictureQuery, thumbnailQuery } from "./comparison.js";
import { button, h, renew, show } from "./dom.js";
import { PictureStage } from "./picture_stage.js";
import { cellPicker, details, modelButtons } from "./viewer_parts.js";
import { moved } from "./window.js";

/**
 * `index` is the picture, or the right one of two; `other` the left one, or null.
 * @param address turns a query for /view into an address
 * @param changed called when another picture is shown
 */
export class PicturePage {
  index = 0;
  other = null;
  #comparison = null;
  #scores = [];
  #cells = []; // one or two, as they are shown

  constructor(address, changed) {
    this.address = address;
    this.changed = changed;
    this.stage = new PictureStage();
    this.ends = h("div", { class: "lk-ends" });
    this.models = h("div", {
      class: "lk-models",
      role: "group",
      "aria-label": "The same prompt by each model",
    });
    this.details = h("aside", { class: "lk-details", "aria-label": "About this picture" });
    this.element = h(
      "div",
      { class: "lk-picture-page", tabindex: "-1" },
      h("div", { class: "lk-picture-main" }, this.ends, this.stage.element, this.models),
      this.details,
    );
  }

  /** Takes a comparison; shows nothing of it yet. */
  open(comparison, scores) {
    this.#comparison = comparison;
    this.#scores = scores;
    this.#cells = [];
    this.stage.size(comparison.width, comparison.height);
  }

  /** Takes other scores. */
  score(scores) {
    this.#scores = scores;
    if (this.#cells.length) this.details.replaceChildren(...details(this.#cells, scores));
  }

  /** What is shown, in words: {title, text}. */
  get titles() {
    const b = cellOf(this.#comparison, this.index);
    if (this.other === null) return { title: `${b.label} · ${b.key}`, text: b.prompt };
    const a = cellOf(this.#comparison, this.other);
    const text = a.column === b.column ? a.prompt : `${a.key} | ${b.key}`;
    return { title: `${a.label} | ${b.label}`, text };
  }

  /** Shows one picture. */
  single(index) {
    [this.index, this.other] = [index, null];
    const cell = cellOf(this.#comparison, index);
    this.stage.single(this.#pictureOf(cell));
    show(this.ends, false);
    this.#showAround([cell]);
  }

  /** Shows two pictures, left and right of the divider. */
  pair(left, right) {
    [this.other, this.index] = [left, right];
    const [a, b] = [left, right].map((index) => cellOf(this.#comparison, index));
    this.stage.pair(this.#pictureOf(a), this.#pictureOf(b));
    const swap = () => this.pair(right, left);
    const { activeElement } = document;
    const used = this.ends.contains(activeElement) && activeElement.getAttribute("aria-label");
    this.ends.replaceChildren(
      cellPicker("A", this.#comparison, a, (index) => this.pair(index, right)),
      button({ label: "Swap A and B", symbol: "swap", kind: "plain", click: swap }),
      cellPicker("B", this.#comparison, b, (index) => this.pair(left, index)),
    );
    show(this.ends, true);
    if (used) this.ends.querySelector(`[aria-label="${used}"]`)?.focus({ preventScroll: true });
    this.#showAround([a, b]);
  }

  /** From one picture to two, the first model's beside it, and back. */
  toggle() {
    if (this.other !== null) return this.single(this.index);
    const across = this.#comparison.columns.length;
    const first = this.index % across;
    const second = first + across < this.#comparison.pictures.length ? first + across : first;
    this.pair(first, this.index === first ? second : this.index);
  }

  /** Fits the picture into the space, or shows each of its pixels. */
  toggleActual() {
    this.stage.toggleActual();
    this.changed();
  }

  /** Shows again what has changed of these cells. */
  refresh(indices) {
    if (!indices.some((index) => index === this.index || index === this.other))
      return this.#showModels();
    if (this.other === null) this.single(this.index);
    else this.pair(this.other, this.index);
  }

  /** Does what a key stands for; returns whether it does. */
  key({ key, target }) {
    if (key.toLowerCase() === "z") this.toggleActual();
    else if (key.toLowerCase() === "x" && this.other !== null) this.pair(this.index, this.other);
    else return !this.#hasArrows(target) && this.#step(key);
    return true;
  }

  /** Whether the arrow keys move something else than the choice of a picture. */
  #hasArrows(target) {
    return target.closest("[role=slider]") || (target === this.stage.element && this.stage.actual);
  }

  #step(key) {
    const { rows, columns } = this.#comparison;
    const { row, column } = cellOf(this.#comparison, this.index);
    const target = moved({ row, column }, key, rows.length, columns.length, 1);
    if (!target) return false;
    const index = target.row * columns.length + target.column;
    if (this.other === null) this.single(index);
    else this.pair(this.#along(target.column - column), index);
    return true;
  }

  /** The left picture so many columns further, so that both stay on the same prompt. */
  #along(columns) {
    const across = this.#comparison.columns.length;
    const { row, column } = cellOf(this.#comparison, this.other);
    return row * across + Math.max(0, Math.min(across - 1, column + columns));
  }

  #pictureOf({ index, label, key, drawn }) {
    return {
      name: `${label}, ${key}`,
      address: drawn && this.address(pictureQuery(this.#comparison, index)),
      small: this.address(thumbnailQuery(this.#comparison, index)),
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
    const { index, other, address } = this;
    // prettier-ignore
    const chosen = new Map(other === null ? [[index, ""]] : [[index, "B"], [other, "A"]]);
    const { column } = cellOf(this.#comparison, index);
    const pick = (picked, event) => this.#pick(picked, event);
    renew(
      this.models,
      modelButtons({ comparison: this.#comparison, column, chosen, address, pick }),
    );
  }

  #pick(index, event) {
    if (this.other === null) this.single(index);
    else if (event.shiftKey) this.pair(index, this.index);
    else this.pair(this.other, index);
    this.element.focus({ preventScroll: true });
  }
}
