// A comparison's grid, virtualised: only visible cells are in the DOM.

import { bestOfColumns, cellOf } from "./comparison.js";
import { h, renderRange } from "./dom.js";
import { significant } from "./format.js";
import { nextCell, scrollOffset, visibleRange } from "./virtual_grid.js";

const GAP = 4;
const WIDE = 120; // from this width on, column heads also show the prompt
const TALL_HEAD = 46;

/**
 * @param getUrl index -> URL of a thumbnail
 * @param onChoose (index, event) -> handles a click or Enter
 * @param onMenu (index, event) -> handles a right click or the menu key
 * @param width, label widths of a cell and of a row's name, in pixels
 * @param fit {minWidth, maxWidth} to size cells so that all fit if possible; null: use `width`
 */
export class CellGrid {
  #comparison = null;
  #measure = null;
  #best = new Set();
  #marks = new Map();
  #failedImages = new Set(); // indices of cells whose thumbnail failed to load
  #rows = new Map(); // row -> {element, cells: Map of column -> element}
  #heads = new Map();
  #active = { row: 0, column: 0 };
  #frame = 0;

  constructor({ getUrl, onChoose, onMenu, width = 96, label = 84, fit = null }) {
    this.getUrl = getUrl;
    this.onChoose = onChoose;
    this.onMenu = onMenu;
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
    this.element.addEventListener("scroll", () => this.#scheduleRender(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", (event) => this.#enter(event));
    this.element.addEventListener("click", (event) => this.#click(event, this.onChoose));
    this.element.addEventListener("contextmenu", (event) => this.#click(event, this.onMenu));
    const onResize = () => (this.fit ? this.#fitToView() : this.#scheduleRender());
    new ResizeObserver(onResize).observe(this.element);
  }

  /** Shows a comparison from the start; null clears the grid. */
  show(comparison) {
    this.#comparison = comparison;
    this.#clear();
    if (!comparison) return;
    this.element.setAttribute("aria-rowcount", comparison.rows.length + 1);
    this.element.setAttribute("aria-colcount", comparison.columns.length + 1);
    this.element.setAttribute("aria-label", `Comparison ${comparison.name}`);
    this.#active = { row: 0, column: 0 };
    this.#updateBest();
    if (this.fit) this.#fitToView();
    this.#layOut();
  }

  /** Rerenders cells whose image is new or changed, and those that failed to load. */
  refresh(indices) {
    this.#keepFocus(() => {
      for (const index of [...indices, ...this.#failedImages]) {
        const { row, column } = this.#position(index);
        const cells = this.#rows.get(row)?.cells;
        cells?.get(column)?.remove();
        cells?.delete(column);
      }
      this.#failedImages.clear();
      this.#render();
    });
  }

  /** Shows a measure's values in the cells; null shows none. */
  setMeasure(measure) {
    this.#measure = measure;
    this.#updateBest();
    this.#rebuild();
  }

  /** Marks cells with a letter: {index: "A"}. */
  mark(marks) {
    this.#marks = new Map(Object.entries(marks).map(([index, letter]) => [Number(index), letter]));
    this.#rebuild();
  }

  /** Sets the width of a cell in pixels. */
  resize(width) {
    if (this.width === width) return;
    this.width = width;
    this.#rebuild();
  }

  /** Scrolls to a cell and focuses it. */
  focus(index) {
    this.#focusCell(this.#position(index));
  }

  #position(index) {
    const columnCount = this.#comparison.columns.length;
    return { row: Math.floor(index / columnCount), column: index % columnCount };
  }

  /** Makes cells as large as possible while all of them are visible. */
  #fitToView() {
    const { clientWidth, clientHeight } = this.element;
    if (!this.#comparison || !clientWidth) return;
    const { rows, columns, aspect } = this.#comparison;
    const byWidth = (clientWidth - this.label) / columns.length - GAP;
    const byHeight = ((clientHeight - TALL_HEAD) / rows.length - GAP) * aspect;
    const { minWidth, maxWidth } = this.fit;
    const width = Math.floor(Math.max(minWidth, Math.min(maxWidth, byWidth, byHeight)));
    if (width === this.width) return this.#scheduleRender();
    this.width = width;
    this.#rebuild();
  }

  #rebuild() {
    this.#keepFocus(() => {
      this.#clear();
      this.#layOut();
    });
  }

  /** Keeps the focus in the grid if `change` removes its cell, or no key events would arrive. */
  #keepFocus(change) {
    const inside = this.sheet.contains(document.activeElement);
    change();
    if (!inside || this.sheet.contains(document.activeElement)) return;
    (this.#activeCell ?? this.element).focus({ preventScroll: true });
  }

  #updateBest() {
    this.#best =
      this.#measure && this.#comparison
        ? bestOfColumns(this.#measure, this.#comparison.columns.length)
        : new Set();
  }

  get #size() {
    // Rounding up could overflow a fitted grid, and scroll bars would flicker.
    const round = this.fit ? Math.floor : Math.round;
    const height = round(this.width / this.#comparison.aspect);
    return { columnWidth: this.width + GAP, rowHeight: height + GAP };
  }

  /** Size in pixels of the part of the grid that shows cells. */
  get #viewport() {
    const { clientWidth, clientHeight } = this.element;
    return { width: clientWidth - this.label, height: clientHeight - this.#headHeight };
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
    const { columnWidth, rowHeight } = this.#size;
    const { style } = this.sheet;
    style.setProperty("--lk-label", `${this.label}px`);
    style.setProperty("--lk-head", `${this.#headHeight}px`);
    style.setProperty("--lk-width", `${this.width}px`);
    style.setProperty("--lk-height", `${rowHeight - GAP}px`);
    style.width = `${this.label + columns.length * columnWidth}px`;
    style.height = `${this.#headHeight + rows.length * rowHeight}px`;
    this.#render();
  }

  #scheduleRender() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => this.#keepFocus(() => this.#render()));
    }
  }

  #render() {
    this.#frame = 0;
    if (!this.#comparison || !this.element.clientWidth) return;
    const { rows, columns } = this.#comparison;
    const { columnWidth, rowHeight } = this.#size;
    const { scrollLeft, scrollTop } = this.element;
    const { width, height } = this.#viewport;
    const rowRange = visibleRange(scrollTop, height, rowHeight, rows.length);
    const columnRange = visibleRange(scrollLeft, width, columnWidth, columns.length);
    const head = (column) => this.#columnHead(column, columnWidth);
    renderRange(this.#heads, columnRange, head, this.head);
    renderRange(this.#rows, rowRange, (row) => this.#row(row, rowHeight), this.sheet);
    for (const [row, { element, cells }] of this.#rows) {
      renderRange(cells, columnRange, (column) => this.#cell(row, column, columnWidth), element);
    }
    this.#updateTabIndex();
  }

  /** Puts the active cell in the tab order, or the grid itself while that is scrolled away. */
  #updateTabIndex() {
    this.element.tabIndex = this.#activeCell ? -1 : 0;
  }

  get #activeCell() {
    return this.#rows.get(this.#active.row)?.cells.get(this.#active.column);
  }

  #columnHead(column, columnWidth) {
    const { key, prompt } = this.#comparison.columns[column];
    const left = `${this.label + column * columnWidth}px`;
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

  #row(row, rowHeight) {
    const mean = this.#measure?.rows[row] ?? null;
    const name = this.#comparison.rows[row];
    const head = h(
      "div",
      { class: "lk-grid-label", role: "rowheader", "aria-colindex": 1, title: name },
      h("strong", {}, name),
      mean !== null && h("span", {}, significant(mean, 3)),
    );
    const top = `${this.#headHeight + row * rowHeight}px`;
    const element = h(
      "div",
      { class: "lk-grid-row", role: "row", "aria-rowindex": row + 2, style: { top } },
      head,
    );
    return { element, cells: new Map(), remove: () => element.remove() };
  }

  #cell(row, column, columnWidth) {
    const index = row * this.#comparison.columns.length + column;
    const cell = cellOf(this.#comparison, index);
    const value = this.#measure?.cells[index] ?? null;
    const letter = this.#marks.get(index);
    const best = this.#best.has(index);
    const label = [
      cell.label,
      cell.key,
      cell.drawn ? "" : "not generated yet",
      letter && `marked ${letter}`,
    ];
    if (value !== null)
      label.push(
        `${this.#measure.label} ${significant(value, 3)}${best ? ", best of its column" : ""}`,
      );
    const active = row === this.#active.row && column === this.#active.column;
    return h(
      "button",
      {
        type: "button",
        role: "gridcell",
        class: `lk-cell${cell.drawn ? "" : " missing"}${letter ? " marked" : ""}`,
        style: { left: `${this.label + column * columnWidth}px` },
        tabindex: active ? 0 : -1,
        "aria-colindex": column + 2,
        "aria-label": label.filter(Boolean).join(", "),
        dataset: { index },
      },
      cell.drawn && this.#image(index),
      value !== null &&
        h("span", { class: `lk-score${best ? " best" : ""}` }, significant(value, 3)),
      letter && h("span", { class: "lk-mark" }, letter),
    );
  }

  #image(index) {
    const src = this.getUrl(index);
    const image = h("img", { alt: "", draggable: "false", decoding: "async", src });
    image.addEventListener("error", () => {
      const cell = image.parentElement;
      cell?.classList.add("missing");
      this.#failedImages.add(index);
      image.replaceWith(h("span", { class: "lk-gone" }, "file missing"));
    });
    return image;
  }

  #click(event, callback) {
    const cell = event.target.closest(".lk-cell");
    if (!cell) return;
    if (event.type === "contextmenu") {
      event.preventDefault();
      event.stopPropagation(); // or ComfyUI opens its own menu
    }
    const index = Number(cell.dataset.index);
    this.#activate(this.#position(index));
    callback(index, event);
  }

  #key(event) {
    if (!this.#comparison || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = this.#comparison;
    const target = nextCell(this.#active, event.key, rows.length, columns.length);
    if (!target) return;
    event.preventDefault();
    event.stopPropagation();
    this.#focusCell(target);
  }

  /** Returns to the active cell when tabbed into while that is scrolled away. */
  #enter({ relatedTarget }) {
    if (this.#comparison && relatedTarget && this.element.matches(":focus-visible"))
      this.#focusCell(this.#active);
  }

  #focusCell(target) {
    const { columnWidth, rowHeight } = this.#size;
    const { width, height } = this.#viewport;
    const { element } = this;
    const [left, top] = [target.column * columnWidth, target.row * rowHeight];
    element.scrollLeft = scrollOffset(element.scrollLeft, width, left, left + columnWidth);
    element.scrollTop = scrollOffset(element.scrollTop, height, top, top + rowHeight);
    this.#render();
    this.#activate(target);
    this.#activeCell?.focus({ preventScroll: true });
  }

  #activate(target) {
    this.#activeCell?.setAttribute("tabindex", -1);
    this.#active = target;
    this.#activeCell?.setAttribute("tabindex", 0);
    this.#updateTabIndex();
  }
}
