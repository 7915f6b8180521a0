// The grid of a comparison: only what is on the screen is in the document.

import { bestOfColumns, cellOf } from "./comparison.js";
import { h, showRange } from "./dom.js";
import { significant } from "./format.js";
import { moved, scrolledTo, visible } from "./window.js";

const GAP = 4;
const WIDE = 120; // a column's head then has its prompt too
const TALL_HEAD = 46;

/**
 * @param address index -> address of a small picture
 * @param choose (index, event) -> what a click or Enter does
 * @param menu (index, event) -> what a right click does, or the keyboard's menu key
 * @param width, label of a cell and of a row's name, in pixels
 * @param fit {least, most} width, between which all cells fit if they can; null: as `width` says
 */
export class CellGrid {
  #comparison = null;
  #measure = null;
  #best = new Set();
  #marks = new Map();
  #unread = new Set(); // cells whose small picture could not be read
  #rows = new Map(); // row -> {element, cells: Map of column -> element}
  #heads = new Map();
  #active = { row: 0, column: 0 };
  #frame = 0;

  constructor({ address, choose, menu, width = 96, label = 84, fit = null }) {
    this.address = address;
    this.choose = choose;
    this.menu = menu;
    this.width = width;
    this.label = label;
    this.fit = fit;
    this.head = h("div", { class: "lk-grid-head", role: "row" });
    this.corner = h("div", { class: "lk-corner", role: "columnheader" });
    this.head.append(this.corner);
    this.sheet = h("div", { class: "lk-grid-sheet" }, this.head);
    this.element = h(
      "div",
      { class: "lk-grid", role: "grid", tabindex: "-1", dataset: { captureWheel: "true" } },
      this.sheet,
    );
    this.element.addEventListener("scroll", () => this.#later(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", (event) => this.#enter(event));
    this.element.addEventListener("click", (event) => this.#click(event, this.choose));
    this.element.addEventListener("contextmenu", (event) => this.#click(event, this.menu));
    new ResizeObserver(() => (this.fit ? this.#fitIn() : this.#later())).observe(this.element);
  }

  /** Shows a comparison from the start, or null. */
  show(comparison) {
    this.#comparison = comparison;
    this.#clear();
    if (!comparison) return;
    this.element.setAttribute("aria-rowcount", comparison.rows.length + 1);
    this.element.setAttribute("aria-colcount", comparison.columns.length + 1);
    this.element.setAttribute("aria-label", `Comparison ${comparison.name}`);
    this.#active = { row: 0, column: 0 };
    this.#measured();
    if (this.fit) this.#fitIn();
    this.#layOut();
  }

  /** Draws cells anew whose picture has come or changed, or could not be read. */
  refresh(indices) {
    const across = this.#comparison.columns.length;
    this.#keepFocus(() => {
      for (const index of [...indices, ...this.#unread]) {
        const row = this.#rows.get(Math.floor(index / across));
        row?.cells.get(index % across)?.remove();
        row?.cells.delete(index % across);
      }
      this.#unread.clear();
      this.#render();
    });
  }

  /** Shows a measure's values in the cells; null: none. */
  score(measure) {
    this.#measure = measure;
    this.#measured();
    this.#anew();
  }

  /** Marks cells with a letter: {index: "A"}. */
  mark(marks) {
    this.#marks = new Map(Object.entries(marks).map(([index, letter]) => [Number(index), letter]));
    this.#anew();
  }

  /** Sets the width of a cell in pixels. */
  resize(width) {
    if (this.width === width) return;
    this.width = width;
    this.#anew();
  }

  /** Puts the keyboard's focus on a cell, and scrolls there. */
  focus(index) {
    const across = this.#comparison.columns.length;
    this.#go({ row: Math.floor(index / across), column: index % across });
  }

  /** The largest cells of which all are on the screen. */
  #fitIn() {
    const { clientWidth, clientHeight } = this.element;
    if (!this.#comparison || !clientWidth) return;
    const { rows, columns, aspect } = this.#comparison;
    const across = (clientWidth - this.label) / columns.length - GAP;
    const down = ((clientHeight - TALL_HEAD) / rows.length - GAP) * aspect;
    const { least, most } = this.fit;
    const width = Math.floor(Math.max(least, Math.min(most, across, down)));
    if (width === this.width) return this.#later();
    this.width = width;
    this.#anew();
  }

  #anew() {
    this.#keepFocus(() => {
      this.#clear();
      this.#layOut();
    });
  }

  /** The focus of a cell that `change` removes stays in the grid, or no key would be heard. */
  #keepFocus(change) {
    const inside = this.sheet.contains(document.activeElement);
    change();
    if (!inside || this.sheet.contains(document.activeElement)) return;
    (this.#activeCell ?? this.element).focus({ preventScroll: true });
  }

  #measured() {
    this.#best =
      this.#measure && this.#comparison
        ? bestOfColumns(this.#measure, this.#comparison.columns.length)
        : new Set();
  }

  get #size() {
    // What is to fit must not be half a pixel too high: scroll bars would come and go.
    const whole = this.fit ? Math.floor : Math.round;
    return { across: this.width + GAP, down: whole(this.width / this.#comparison.aspect) + GAP };
  }

  get #headHeight() {
    return this.width >= WIDE ? TALL_HEAD : 26;
  }

  #clear() {
    for (const { element } of this.#rows.values()) element.remove();
    for (const element of this.#heads.values()) element.remove();
    this.#rows.clear();
    this.#heads.clear();
  }

  #layOut() {
    if (!this.#comparison) return;
    const { rows, columns } = this.#comparison;
    const { across, down } = this.#size;
    const { style } = this.sheet;
    style.setProperty("--lk-label", `${this.label}px`);
    style.setProperty("--lk-head", `${this.#headHeight}px`);
    style.setProperty("--lk-width", `${this.width}px`);
    style.setProperty("--lk-height", `${down - GAP}px`);
    style.width = `${this.label + columns.length * across}px`;
    style.height = `${this.#headHeight + rows.length * down}px`;
    this.#render();
  }

  #later() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => this.#keepFocus(() => this.#render()));
    }
  }

  #render() {
    this.#frame = 0;
    if (!this.#comparison || !this.element.clientWidth) return;
    const { rows, columns } = this.#comparison;
    const { across, down } = this.#size;
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.element;
    const downRange = visible(scrollTop, clientHeight - this.#headHeight, down, rows.length);
    const acrossRange = visible(scrollLeft, clientWidth - this.label, across, columns.length);
    showRange(this.#heads, acrossRange, (column) => this.#columnHead(column, across), this.head);
    showRange(this.#rows, downRange, (row) => this.#row(row, down), this.sheet);
    for (const [row, { element, cells }] of this.#rows) {
      showRange(cells, acrossRange, (column) => this.#cell(row, column, across), element);
    }
    this.#findable();
  }

  /** The Tab key finds the active cell, or the grid where that is scrolled away. */
  #findable() {
    this.element.tabIndex = this.#activeCell ? -1 : 0;
  }

  get #activeCell() {
    return this.#rows.get(this.#active.row)?.cells.get(this.#active.column);
  }

  #columnHead(column, across) {
    const { key, prompt } = this.#comparison.columns[column];
    const left = `${this.label + column * across}px`;
    return h(
      "div",
      {
        class: "lk-grid-column",
        role: "columnheader",
        "aria-colindex": column + 2,
        style: { left },
        title: `${key}\n${prompt ?? ""}`,
      },
      h("strong", {}, key),
      this.width >= WIDE && h("span", {}, prompt ?? ""),
    );
  }

  #row(row, down) {
    const mean = this.#measure?.rows[row] ?? null;
    const name = this.#comparison.rows[row];
    const head = h(
      "div",
      { class: "lk-grid-label", role: "rowheader", "aria-colindex": 1, title: name },
      h("strong", {}, name),
      mean !== null && h("span", {}, significant(mean, 3)),
    );
    const top = `${this.#headHeight + row * down}px`;
    const element = h(
      "div",
      { class: "lk-grid-row", role: "row", "aria-rowindex": row + 2, style: { top } },
      head,
    );
    return { element, cells: new Map(), remove: () => element.remove() };
  }

  #cell(row, column, across) {
    const index = row * this.#comparison.columns.length + column;
    const cell = cellOf(this.#comparison, index);
    const value = this.#measure?.cells[index] ?? null;
    const letter = this.#marks.get(index);
    const best = this.#best.has(index);
    const said = [
      cell.label,
      cell.key,
      cell.drawn ? "" : "not drawn yet",
      letter && `marked ${letter}`,
    ];
    if (value !== null)
      said.push(
        `${this.#measure.label} ${significant(value, 3)}${best ? ", best of its column" : ""}`,
      );
    const active = row === this.#active.row && column === this.#active.column;
    return h(
      "button",
      {
        type: "button",
        role: "gridcell",
        class: `lk-cell${cell.drawn ? "" : " missing"}${letter ? " marked" : ""}`,
        style: { left: `${this.label + column * across}px` },
        tabindex: active ? 0 : -1,
        "aria-colindex": column + 2,
        "aria-label": said.filter(Boolean).join(", "),
        dataset: { index },
      },
      cell.drawn && this.#picture(index),
      value !== null &&
        h("span", { class: `lk-score${best ? " best" : ""}` }, significant(value, 3)),
      letter && h("span", { class: "lk-mark" }, letter),
    );
  }

  #picture(index) {
    const image = h("img", {
      alt: "",
      draggable: "false",
      decoding: "async",
      src: this.address(index),
    });
    image.addEventListener("error", () => {
      const cell = image.parentElement;
      cell?.classList.add("missing");
      this.#unread.add(index);
      image.replaceWith(h("span", { class: "lk-gone" }, "file is gone"));
    });
    return image;
  }

  #click(event, then) {
    const cell = event.target.closest(".lk-cell");
    if (!cell) return;
    if (event.type === "contextmenu") {
      event.preventDefault();
      event.stopPropagation(); // ComfyUI's own menu
    }
    const index = Number(cell.dataset.index);
    const across = this.#comparison.columns.length;
    this.#activate({ row: Math.floor(index / across), column: index % across });
    then(index, event);
  }

  #key(event) {
    if (!this.#comparison || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = this.#comparison;
    const target = moved(this.#active, event.key, rows.length, columns.length);
    if (!target) return;
    event.preventDefault();
    event.stopPropagation();
    this.#go(target);
  }

  /** By the Tab key from another element, while the active cell is scrolled away: back to it. */
  #enter({ relatedTarget }) {
    if (this.#comparison && relatedTarget && this.element.matches(":focus-visible"))
      this.#go(this.#active);
  }

  #go(target) {
    const { across, down } = this.#size;
    const { element } = this;
    const [left, top] = [target.column * across, target.row * down];
    element.scrollLeft = scrolledTo(
      element.scrollLeft,
      element.clientWidth - this.label,
      left,
      left + across,
    );
    element.scrollTop = scrolledTo(
      element.scrollTop,
      element.clientHeight - this.#headHeight,
      top,
      top + down,
    );
    this.#render();
    this.#activate(target);
    this.#activeCell?.focus({ preventScroll: true });
  }

  #activate(target) {
    this.#activeCell?.setAttribute("tabindex", -1);
    this.#active = target;
    this.#activeCell?.setAttribute("tabindex", 0);
    this.#findable();
  }
}
