// The comparison over the whole window: the grid, or a page with one or two pictures.

import { ArchiveButton } from "./archive_button.js";
import { CellGrid } from "./cell_grid.js";
import { AGAIN, openCellMenu } from "./cell_menu.js";
import {
  downloadName,
  drawnCount,
  pictureQuery,
  safe,
  sheetQuery,
  thumbnailQuery,
} from "./comparison.js";
import { button, h, loadStyle, reportLink, say, show } from "./dom.js";
import { save } from "./download.js";
import { plural } from "./format.js";
import { keepKeys } from "./keys.js";
import { PicturePage } from "./picture_page.js";

const SIZES = { min: 64, max: 384, step: 8, value: 168 };
const ACTUAL = "Each pixel of the picture; the arrow keys move it while it has the focus";
const SHEET = "The contact sheet; drag the file onto ComfyUI to get the workflow back";

/**
 * A dialog.
 * @param address turns a query for /view into an address
 * @param reportAddress gives the address of a comparison's report
 * @param drawAgain (comparison, index) -> has a cell drawn again, and gives what to say of it
 */
export class Viewer {
  #comparison = null;
  #scores = [];
  #choosing = false;
  #first = null; // of two pictures that are chosen in the grid
  #asked = null; // the cell that was asked for again

  constructor({ address, reportAddress, drawAgain }) {
    loadStyle("grid", "viewer");
    Object.assign(this, { address, reportAddress, drawAgain });
    this.grid = new CellGrid({
      address: (index) => address(thumbnailQuery(this.#comparison, index)),
      choose: (index, event) => this.#chosen(index, event),
      menu: (index, event) => this.#menu(index, event),
      width: SIZES.value,
      label: 124,
    });
    this.page = new PicturePage(address, () => this.#layOut(false));
    this.#build();
  }

  /** Opens on a cell, or on the grid. */
  open(comparison, scores, index = null) {
    this.#comparison = comparison;
    this.#scores = scores;
    this.#asked = null;
    this.report.href = this.reportAddress(comparison.name);
    this.#fillMeasures();
    this.grid.show(comparison);
    this.page.open(comparison, scores);
    document.body.append(this.dialog);
    if (!this.dialog.open) this.dialog.showModal();
    this.#choose(false);
    if (index === null) this.#showGrid(0);
    else this.#showPicture(index);
  }

  /** Tells of cells that were drawn while it is open. */
  refresh(comparison, indices) {
    if (!this.dialog.open || comparison !== this.#comparison) return;
    if (indices.includes(this.#asked)) this.#say("The picture was drawn again.");
    this.grid.refresh(indices);
    if (this.inGrid) this.#layOut(true);
    else this.page.refresh(indices);
  }

  /** Takes the scores of the comparison that is open, and whether it has a report. */
  score(comparison, scores) {
    if (!this.dialog.open || comparison !== this.#comparison) return;
    if (JSON.stringify(scores) !== JSON.stringify(this.#scores)) {
      this.#scores = scores;
      this.#fillMeasures();
      this.page.score(scores);
    }
    this.#layOut(this.inGrid);
  }

  get inGrid() {
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
    keepKeys(this.dialog);
  }

  #controls() {
    const press = (options) => button({ symbol: "download", ...options });
    const leave = () => this.#showGrid(this.page.index);
    this.back = press({ label: "Back to the grid", symbol: "grid", kind: "plain", click: leave });
    this.compare = press({ text: "Compare two", symbol: "compare", click: () => this.#compare() });
    this.actual = press({
      text: "Actual size",
      title: ACTUAL,
      symbol: "expand",
      click: () => this.page.toggleActual(),
    });
    this.again = press({
      text: "Draw again",
      title: AGAIN,
      symbol: "refresh",
      click: () => this.#again(this.page.index),
    });
    this.one = press({ text: "Download", click: () => this.#saveOne() });
    this.report = reportLink();
    this.sheet = press({ text: "Sheet", title: SHEET, click: () => this.#saveSheet() });
    this.archive = new ArchiveButton(
      () => this.#contents(),
      (text) => this.#say(text),
    );
    this.measures = h("select", {
      class: "lk-select",
      "aria-label": "Score shown in the cells",
      on: { change: () => this.grid.score(this.#measure) },
    });
    this.size = h("input", {
      type: "range",
      class: "lk-range",
      "aria-label": "Size of the pictures",
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
    const files = [this.again, this.one, this.report, this.sheet, this.archive.element];
    const views = [this.measures, this.size, this.compare, this.actual];
    return [this.back, titles, ...views, ...files, shut];
  }

  #fillMeasures() {
    const options = this.#scores.map(({ key, label, encoder, meaning }) =>
      h("option", { value: key, title: meaning }, `${label} (${encoder})`),
    );
    const before = this.measures.value;
    this.measures.replaceChildren(h("option", { value: "" }, "scores: off"), ...options);
    this.measures.value = this.#scores.some((measure) => measure.key === before) ? before : "";
    this.grid.score(this.#measure);
  }

  get #measure() {
    return this.#scores.find((measure) => measure.key === this.measures.value) ?? null;
  }

  // What is shown

  #showGrid(index) {
    this.#layOut(true);
    this.grid.focus(index);
  }

  #showPicture(index) {
    this.page.single(index);
    this.page.element.focus({ preventScroll: true });
  }

  #layOut(inGrid) {
    const pair = !inGrid && this.page.other !== null;
    show(this.grid.element, inGrid);
    show(this.page.element, !inGrid);
    show(this.back, !inGrid);
    show(this.actual, !inGrid);
    show(this.size, inGrid);
    show(this.archive.element, inGrid);
    show(this.sheet, inGrid && this.#comparison.sheet !== null);
    show(this.one, !inGrid && !pair);
    show(this.again, !inGrid && !pair);
    this.again.disabled = !(this.#comparison.drawn[this.page.index] > 0);
    show(this.report, inGrid && this.#comparison.report);
    show(this.measures, inGrid && this.#scores.length > 0);
    this.archive.offer(drawnCount(this.#comparison));
    this.compare.setAttribute("aria-pressed", String(pair || this.#choosing));
    this.actual.setAttribute("aria-pressed", String(this.page.stage.actual));
    const { title, text } = inGrid ? this.#gridTitles() : this.page.titles;
    say(this.title, title);
    say(this.text, text);
    if (inGrid) return;
    if (this.#asked !== null && this.page.index !== this.#asked) this.#forgetAsked();
    this.#keepFocus();
  }

  /** Where what had the focus is gone or hidden, no key would be heard. */
  #keepFocus() {
    const { activeElement } = document;
    if (!this.dialog.contains(activeElement) || activeElement.closest("[hidden]"))
      this.page.element.focus({ preventScroll: true });
  }

  #gridTitles() {
    const { name, rows, columns, pictures } = this.#comparison;
    const left = pictures.length - drawnCount(this.#comparison);
    const size = `${plural(rows.length, "model")} × ${plural(columns.length, "prompt")}`;
    return { title: name, text: left ? `${size} · ${left} not drawn yet` : size };
  }

  #say(text) {
    say(this.hint, text);
    show(this.hint, text !== "");
  }

  // Choosing

  #chosen(index, event) {
    if (event.shiftKey && !this.#choosing) this.#choose(true);
    if (!this.#choosing) this.#showPicture(index);
    else if (this.#first === null) this.#chooseFirst(index);
    else {
      const first = this.#first;
      this.#choose(false);
      this.page.pair(first, index);
      this.page.element.focus({ preventScroll: true });
    }
  }

  #chooseFirst(index) {
    this.#first = index;
    this.grid.mark({ [index]: "A" });
    this.grid.focus(index);
    this.#say("Now click the second picture.");
  }

  #compare() {
    if (this.inGrid) this.#choose(!this.#choosing);
    else this.page.toggle();
  }

  #choose(choosing) {
    this.#choosing = choosing;
    this.#first = null;
    this.compare.setAttribute("aria-pressed", String(choosing));
    this.grid.mark({});
    this.#say(choosing ? "Click the first of two pictures." : "");
  }

  // Drawing again

  #menu(index, event) {
    const open = () => this.#showPicture(index);
    const again = () => this.#again(index);
    openCellMenu(this.#comparison, index, event, { address: this.address, open, again });
  }

  async #again(index) {
    const comparison = this.#comparison;
    this.#asked = index;
    const text = await this.drawAgain(comparison, index);
    if (comparison === this.#comparison) this.#say(text);
  }

  #forgetAsked() {
    this.#asked = null;
    this.#say("");
  }

  // Keys

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // Not left to "cancel": Chromium lets the second Esc in a row close the dialog in any case.
    if (event.key === "Escape") return this.#escape(event);
    if (event.target.closest("select, input")) return;
    if (event.key.toLowerCase() === "c") this.#compare();
    else if (this.inGrid || !this.page.key(event)) return;
    event.preventDefault();
  }

  #escape(event) {
    if (this.inGrid && !this.#choosing) return;
    event.preventDefault();
    if (this.#choosing) this.#choose(false);
    else if (this.page.other !== null) this.page.toggle();
    else this.#showGrid(this.page.index);
  }

  #closed() {
    this.archive.stop();
    this.grid.show(null);
    this.dialog.remove();
  }

  // Files

  #saveOne() {
    const { index } = this.page;
    const address = this.address(pictureQuery(this.#comparison, index));
    save(address, downloadName(this.#comparison, index));
  }

  #saveSheet() {
    save(this.address(sheetQuery(this.#comparison)), `${safe(this.#comparison.name)}.png`);
  }

  /** All pictures that are drawn, as an archive. */
  #contents() {
    const comparison = this.#comparison;
    const drawn = [...comparison.pictures.keys()].filter((index) => comparison.drawn[index] > 0);
    const files = drawn.map((index) => ({
      address: this.address(pictureQuery(comparison, index)),
      name: downloadName(comparison, index),
    }));
    return { name: `${safe(comparison.name)}.zip`, files };
  }
}
