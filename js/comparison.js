// The comparison viewer in Contact Sheet.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { CellGrid } from "./lib/cell_grid.js";
import { openCellMenu } from "./lib/cell_menu.js";
import { CoalescingTask } from "./lib/coalescing_task.js";
import {
  addDrawn,
  drawnCount,
  hasSameCells,
  parseComparison,
  parseScores,
  thumbnailQuery,
} from "./lib/comparison.js";
import { readComparison, redrawCell, reportUrl } from "./lib/comparison_client.js";
import { hideCorePreview } from "./lib/core_preview.js";
import { button, h, setText, setVisible } from "./lib/dom.js";
import { plural } from "./lib/format.js";
import { nodePaths, trackNode } from "./lib/graph.js";
import { resolveInput } from "./lib/links.js";
import { addPanel, chainCallback, limitHeight, widgetOf } from "./lib/node_panel.js";
import { isCurrentWorkflow, nodeById, subscribe } from "./lib/node_state.js";
import { onQueueEmpty } from "./lib/queue.js";
import { uniqueName } from "./lib/unique_name.js";
import { Viewer } from "./lib/viewer.js";

const NODE = "Likeness_ContactSheet";
const EMPTY = "The images appear here as they are generated.";
const GONE = "This comparison's files are missing. Queue again to generate them.";
const DRAWING = "The images are being generated.";
const PASTED = -1; // the id of a node that ComfyUI pastes
const WAIT = 400; // ms after the last keystroke in a name
const getUrl = (query) => api.apiURL(query);
const panels = new Map(); // node -> its panel
let viewer = null;

class ComparisonPanel {
  #comparison = null;
  #scores = [];
  #requestedName = null; // of the comparison to show
  #loads = new CoalescingTask((name, known) => this.#load(name, known));
  #empty = EMPTY;

  constructor() {
    this.count = h("span", { class: "lk-count" });
    // For screen readers: the count changes too often to be announced.
    this.liveRegion = h("span", { class: "lk-hidden", role: "status" });
    this.openButton = button({
      text: "Open",
      symbol: "expand",
      kind: "primary",
      click: () => this.#open(null),
    });
    this.bar = h("div", { class: "lk-panel-bar" }, this.count, this.openButton);
    this.grid = new CellGrid({
      getUrl: (index) => getUrl(thumbnailQuery(this.#comparison, index)),
      onChoose: (index) => this.#open(index),
      onMenu: (index, event) => this.#menu(index, event),
      fit: { minWidth: 56, maxWidth: 240 },
    });
    this.message = h("div", { class: "lk-empty" });
    this.remark = h("div", { class: "lk-remark", role: "status" });
    const parts = [this.bar, this.remark, this.grid.element, this.message, this.liveRegion];
    this.element = h("div", { class: "lk-comparison" }, parts);
    this.#showEmpty(this.#empty);
  }

  /** Loads a comparison by name from ComfyUI's output folder; `known`: it is known to exist. */
  load(name, known = true) {
    this.#requestedName = name;
    return this.#loads.run(name, known);
  }

  /** Loads the comparison named by the node's input, if there is one. */
  find({ value, connected }) {
    if (!connected && value) this.load(value.normalize("NFC"), false);
  }

  async #load(name, known) {
    const found = await readComparison(name).catch((error) => ({ error }));
    if (name !== this.#requestedName) return;
    try {
      this.#show(name, found, known);
    } catch (error) {
      this.#showMessage(known ? error.message : EMPTY);
    }
  }

  #show(name, { view, scores, report, error }, known) {
    if (error) throw error;
    if (view === null) return this.#showMessage(known ? GONE : EMPTY);
    const comparison = parseComparison(view, name);
    comparison.report = report === true;
    this.#scores = parseScores(scores, comparison);
    if (hasSameCells(comparison, this.#comparison)) this.#update(comparison);
    else this.#replace(comparison);
  }

  /** Shows newly drawn cells, or all of them once the comparison is finished. */
  drawn({ name, drawn, finished, line }) {
    // A load in progress may predate this event.
    if (finished || this.#loads.busy || this.#comparison?.name !== name) this.load(name);
    else this.#refresh(addDrawn(this.#comparison, drawn));
    // Cells done, cells left and time left.
    if (line) setText(this.#comparison ? this.count : this.message, line);
    setText(this.liveRegion, finished ? "All images are generated." : DRAWING);
  }

  /** Drawing has stopped: replaces the progress line. */
  idle() {
    if (this.liveRegion.textContent !== DRAWING) return;
    setText(this.liveRegion, "No more images are being generated.");
    if (this.#comparison) this.#count();
    else setText(this.message, this.#empty);
  }

  #replace(comparison) {
    this.#comparison = comparison;
    setVisible(this.message, false);
    setVisible(this.bar, true);
    setVisible(this.grid.element, true);
    this.grid.show(comparison);
    this.#showRemark(comparison.remark);
    this.#count();
  }

  /** Updates in place, keeping the open view and the scroll position. */
  #update({ drawn, sheet, report }) {
    const before = this.#comparison.drawn;
    const changed = [...drawn.keys()].filter((index) => drawn[index] !== before[index]);
    Object.assign(this.#comparison, { drawn, sheet, report });
    this.#refresh(changed);
  }

  #refresh(indices) {
    this.grid.refresh(indices);
    viewer?.refresh(this.#comparison, indices);
    this.#count();
  }

  #open(index) {
    viewer ??= new Viewer({ getUrl, reportUrl, redrawCell });
    viewer.open(this.#comparison, this.#scores, index);
    this.#readScores(this.#comparison);
  }

  #menu(index, event) {
    const comparison = this.#comparison;
    const redraw = async () => {
      const text = await redrawCell(comparison, index);
      for (const place of [this.count, this.liveRegion]) setText(place, text);
    };
    openCellMenu(comparison, index, event, { getUrl, open: () => this.#open(index), redraw });
  }

  /** Reloads the scores, as a Score node may have run since. */
  async #readScores(comparison) {
    // If the server is unreachable, the images may still be in the browser's cache.
    const found = await readComparison(comparison.name).catch(() => null);
    if (found === null || comparison !== this.#comparison) return;
    comparison.report = found.report === true;
    this.#scores = parseScores(found.scores, comparison);
    viewer.setScores(comparison, this.#scores);
  }

  #count() {
    const done = drawnCount(this.#comparison);
    const count = this.#comparison.images.length;
    const all = plural(count, "image");
    setText(this.count, done === count ? all : `${done} of ${all}`);
  }

  #showMessage(text) {
    setText(this.liveRegion, text);
    this.#showEmpty(text);
  }

  #showEmpty(text) {
    this.#comparison = null;
    this.#empty = text;
    setText(this.message, text);
    setVisible(this.message, true);
    setVisible(this.bar, false);
    setVisible(this.grid.element, false);
    this.#showRemark("");
  }

  /** Shows a warning about some of the rows. */
  #showRemark(text) {
    setText(this.remark, text);
    setVisible(this.remark, text !== "");
  }
}

/** The names of all other nodes of this kind. */
function otherNames(node) {
  const nodes = [...nodePaths(app.rootGraph ?? app.graph)].map((path) => path.at(-1));
  const others = nodes.filter((one) => one !== node && one.comfyClass === NODE);
  return others.map((one) => widgetOf(one, "name")?.value ?? "");
}

/** Renames a pasted node, which would otherwise overwrite the original's files. */
function renameCopy(node) {
  const widget = widgetOf(node, "name");
  if (!widget || resolveInput(node, "name").connected) return;
  widget.value = uniqueName(widget.value, otherNames(node));
}

/** Loads the matching comparison whenever the node's name changes. */
function watchName(node, panel) {
  let timer = null;
  chainCallback(widgetOf(node, "name"), "callback", () => {
    clearTimeout(timer);
    timer = setTimeout(() => panel.find(resolveInput(node, "name")), WAIT);
  });
}

api.addEventListener("likeness.cells", ({ detail }) => {
  if (isCurrentWorkflow(detail.workflow)) panels.get(nodeById(detail.node))?.drawn(detail);
});
const idle = () => panels.forEach((panel) => panel.idle());
for (const end of ["execution_interrupted", "execution_error"]) api.addEventListener(end, idle);
// Other tabs receive neither event, and after a crash no tab does.
onQueueEmpty(idle);

app.registerExtension({
  name: "Likeness.Comparison",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ComparisonPanel();
    trackNode(node, {
      added: () => panels.set(node, panel),
      removed: () => panels.delete(node),
    });
    hideCorePreview(node);
    limitHeight(widgetOf(node, "redraw"), 56);
    addPanel(node, "likeness_comparison", panel.element, { styles: ["grid"], minHeight: 240 });
    watchName(node, panel);
    const find = () => panel.find(resolveInput(node, "name"));
    subscribe(node, "comparison", (name) => panel.load(name), find);
    chainCallback(node, "onConfigure", (saved) => {
      if (saved.id === PASTED) renameCopy(node);
    });
  },
});
