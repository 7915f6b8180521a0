// A comparison over the whole window: the grid, or a page with one or two images.

import { ArchiveButton } from "./archive_button.js";
import { CellGrid } from "./cell_grid.js";
import { openCellMenu, REDRAW_TITLE } from "./cell_menu.js";
import {
  downloadName,
  drawnCount,
  imageQuery,
  safeFilename,
  sheetQuery,
  thumbnailQuery,
} from "./comparison.js";
import { button, h, loadStyle, reportLink, setText, setVisible } from "./dom.js";
import { downloadUrl } from "./download.js";
import { plural } from "./format.js";
import { ImagePage } from "./image_page.js";
import { blockShortcuts } from "./shortcuts.js";

const SIZES = { min: 64, max: 384, step: 8, value: 168 };
const ACTUAL = "Show at 100 %; the arrow keys pan while it has focus";
const SHEET = "The contact sheet; drop the file onto ComfyUI to load its workflow";

/**
 * The viewer's dialog.
 * @param getUrl turns a /view query into a URL
 * @param reportUrl (name) -> URL of a comparison's report
 * @param redrawCell (comparison, index) -> queues a redraw; resolves to a message for the user
 */
export class Viewer {
  #comparison = null;
  #scores = [];
  #isSelecting = false;
  #first = null; // index of the first of two images selected in the grid
  #pendingRedraw = null; // index of the cell whose redraw was requested

  constructor({ getUrl, reportUrl, redrawCell }) {
    loadStyle("grid", "viewer");
    Object.assign(this, { getUrl, reportUrl, redrawCell });
    this.grid = new CellGrid({
      getUrl: (index) => getUrl(thumbnailQuery(this.#comparison, index)),
      onChoose: (index, event) => this.#onCellClick(index, event),
      onMenu: (index, event) => this.#menu(index, event),
      width: SIZES.value,
      label: 124,
    });
    this.page = new ImagePage(getUrl, () => this.#layOut(false));
    this.#build();
  }

  /** Opens on a cell, or on the grid if `index` is null. */
  open(comparison, scores, index = null) {
    this.#comparison = comparison;
    this.#scores = scores;
    this.#pendingRedraw = null;
    this.reportLink.href = this.reportUrl(comparison.name);
    this.#fillMeasures();
    this.grid.show(comparison);
    this.page.open(comparison, scores);
    document.body.append(this.dialog);
    if (!this.dialog.open) this.dialog.showModal();
    this.#setSelecting(false);
    if (index === null) this.#showGrid(0);
    else this.#showImage(index);
  }

  /** Shows cells that were drawn while the viewer is open. */
  refresh(comparison, indices) {
    if (!this.dialog.open || comparison !== this.#comparison) return;
    if (indices.includes(this.#pendingRedraw)) this.#showHint("The image was redrawn.");
    this.grid.refresh(indices);
    if (this.isGridShown) this.#layOut(true);
    else this.page.refresh(indices);
  }

  /** Replaces the open comparison's scores, and shows whether it has a report. */
  setScores(comparison, scores) {
    if (!this.dialog.open || comparison !== this.#comparison) return;
    if (JSON.stringify(scores) !== JSON.stringify(this.#scores)) {
      this.#scores = scores;
      this.#fillMeasures();
      this.page.setScores(scores);
    }
    this.#layOut(this.isGridShown);
  }

  get isGridShown() {
    return !this.grid.element.hidden;
  }

  // Building

  #build() {
    this.title = h("h2", {});
    this.text = h("span", { class: "lk-muted" });
    this.hint = h("p", { class: "lk-hint", role: "status" });
    this.dialog = h(
      "dialog",
      { class: "likeness lk-viewer", "aria-label": "Comparison" },
      h("header", { class: "lk-bar" }, this.#controls()),
      this.hint,
      this.grid.element,
      this.page.element,
    );
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("cancel", (event) => this.#escape(event));
    this.dialog.addEventListener("close", () => this.#closed());
    blockShortcuts(this.dialog);
  }

  #controls() {
    const press = (options) => button({ symbol: "download", ...options });
    this.backButton = press({
      label: "Back to the grid",
      symbol: "grid",
      kind: "plain",
      click: () => this.#showGrid(this.page.index),
    });
    this.compareButton = press({
      text: "Compare two",
      symbol: "compare",
      click: () => this.#compare(),
    });
    this.actualButton = press({
      text: "Actual size",
      title: ACTUAL,
      symbol: "expand",
      click: () => this.page.toggleActual(),
    });
    this.redrawButton = press({
      text: "Redraw",
      title: REDRAW_TITLE,
      symbol: "refresh",
      click: () => this.#redraw(this.page.index),
    });
    this.downloadButton = press({ text: "Download", click: () => this.#downloadImage() });
    this.reportLink = reportLink();
    this.sheetButton = press({ text: "Sheet", title: SHEET, click: () => this.#downloadSheet() });
    this.archive = new ArchiveButton(
      () => this.#contents(),
      (text) => this.#showHint(text),
    );
    this.measures = h("select", {
      class: "lk-select",
      "aria-label": "Score shown in the cells",
      on: { change: () => this.grid.setMeasure(this.#measure) },
    });
    this.size = h("input", {
      type: "range",
      class: "lk-range",
      "aria-label": "Size of the images",
      ...SIZES,
      on: { input: () => this.grid.resize(Number(this.size.value)) },
    });
    const titles = h("div", { class: "lk-titles" }, this.title, this.text);
    const shut = press({
      label: "Close",
      symbol: "close",
      kind: "plain",
      click: () => this.dialog.close(),
    });
    const files = [
      this.redrawButton,
      this.downloadButton,
      this.reportLink,
      this.sheetButton,
      this.archive.element,
    ];
    const views = [this.measures, this.size, this.compareButton, this.actualButton];
    return [this.backButton, titles, ...views, ...files, shut];
  }

  #fillMeasures() {
    const options = this.#scores.map(({ key, label, encoder, meaning }) =>
      h("option", { value: key, title: meaning }, `${label} (${encoder})`),
    );
    const before = this.measures.value;
    this.measures.replaceChildren(h("option", { value: "" }, "scores: off"), ...options);
    this.measures.value = this.#scores.some((measure) => measure.key === before) ? before : "";
    this.grid.setMeasure(this.#measure);
  }

  get #measure() {
    return this.#scores.find((measure) => measure.key === this.measures.value) ?? null;
  }

  // What is shown

  #showGrid(index) {
    this.#layOut(true);
    this.grid.focus(index);
  }

  #showImage(index) {
    this.page.single(index);
    this.page.element.focus({ preventScroll: true });
  }

  #layOut(isGridShown) {
    const pair = !isGridShown && this.page.other !== null;
    setVisible(this.grid.element, isGridShown);
    setVisible(this.page.element, !isGridShown);
    setVisible(this.backButton, !isGridShown);
    setVisible(this.actualButton, !isGridShown);
    setVisible(this.size, isGridShown);
    setVisible(this.archive.element, isGridShown);
    setVisible(this.sheetButton, isGridShown && this.#comparison.sheet !== null);
    setVisible(this.downloadButton, !isGridShown && !pair);
    setVisible(this.redrawButton, !isGridShown && !pair);
    this.redrawButton.disabled = !(this.#comparison.drawn[this.page.index] > 0);
    setVisible(this.reportLink, isGridShown && this.#comparison.report);
    setVisible(this.measures, isGridShown && this.#scores.length > 0);
    this.archive.setCount(drawnCount(this.#comparison));
    this.compareButton.setAttribute("aria-pressed", String(pair || this.#isSelecting));
    this.actualButton.setAttribute("aria-pressed", String(this.page.stage.actual));
    const { title, text } = isGridShown ? this.#gridTitles() : this.page.titles;
    setText(this.title, title);
    setText(this.text, text);
    if (isGridShown) return;
    if (this.#pendingRedraw !== null && this.page.index !== this.#pendingRedraw)
      this.#clearPendingRedraw();
    this.#keepFocus();
  }

  /** Moves the focus if its element is gone or hidden, or no key events would arrive. */
  #keepFocus() {
    const { activeElement } = document;
    if (!this.dialog.contains(activeElement) || activeElement.closest("[hidden]"))
      this.page.element.focus({ preventScroll: true });
  }

  #gridTitles() {
    const { name, rows, columns, images } = this.#comparison;
    const left = images.length - drawnCount(this.#comparison);
    const size = `${plural(rows.length, "row")} × ${plural(columns.length, "column")}`;
    return { title: name, text: left ? `${size} · ${left} not generated yet` : size };
  }

  #showHint(text) {
    setText(this.hint, text);
    setVisible(this.hint, text !== "");
  }

  // Selecting

  #onCellClick(index, event) {
    if (event.shiftKey && !this.#isSelecting) this.#setSelecting(true);
    if (!this.#isSelecting) this.#showImage(index);
    else if (this.#first === null) this.#selectFirst(index);
    else {
      const first = this.#first;
      this.#setSelecting(false);
      this.page.pair(first, index);
      this.page.element.focus({ preventScroll: true });
    }
  }

  #selectFirst(index) {
    this.#first = index;
    this.grid.mark({ [index]: "A" });
    this.grid.focus(index);
    this.#showHint("Now click the second image.");
  }

  #compare() {
    if (this.isGridShown) this.#setSelecting(!this.#isSelecting);
    else this.page.toggleCompare();
  }

  #setSelecting(selecting) {
    this.#isSelecting = selecting;
    this.#first = null;
    this.compareButton.setAttribute("aria-pressed", String(selecting));
    this.grid.mark({});
    this.#showHint(selecting ? "Click the first of two images." : "");
  }

  // Redrawing

  #menu(index, event) {
    const open = () => this.#showImage(index);
    const redraw = () => this.#redraw(index);
    openCellMenu(this.#comparison, index, event, { getUrl: this.getUrl, open, redraw });
  }

  async #redraw(index) {
    const comparison = this.#comparison;
    this.#pendingRedraw = index;
    const text = await this.redrawCell(comparison, index);
    if (comparison === this.#comparison) this.#showHint(text);
  }

  #clearPendingRedraw() {
    this.#pendingRedraw = null;
    this.#showHint("");
  }

  // Keys

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // "cancel" is not enough: in Chromium a second Esc in a row closes the dialog regardless.
    if (event.key === "Escape") return this.#escape(event);
    if (event.target.closest("select, input")) return;
    if (event.key.toLowerCase() === "c") this.#compare();
    else if (this.isGridShown || !this.page.key(event)) return;
    event.preventDefault();
  }

  #escape(event) {
    if (this.isGridShown && !this.#isSelecting) return;
    event.preventDefault();
    if (this.#isSelecting) this.#setSelecting(false);
    else if (this.page.other !== null) this.page.toggleCompare();
    else this.#showGrid(this.page.index);
  }

  #closed() {
    this.archive.stop();
    this.grid.show(null);
    this.dialog.remove();
  }

  // Files

  #downloadImage() {
    const { index } = this.page;
    const url = this.getUrl(imageQuery(this.#comparison, index));
    downloadUrl(url, downloadName(this.#comparison, index));
  }

  #downloadSheet() {
    const { name } = this.#comparison;
    downloadUrl(this.getUrl(sheetQuery(this.#comparison)), `${safeFilename(name)}.png`);
  }

  /** All drawn images, for the archive. */
  #contents() {
    const comparison = this.#comparison;
    const drawn = [...comparison.images.keys()].filter((index) => comparison.drawn[index] > 0);
    const files = drawn.map((index) => ({
      url: this.getUrl(imageQuery(comparison, index)),
      name: downloadName(comparison, index),
    }));
    return { name: `${safeFilename(comparison.name)}.zip`, files };
  }
}
