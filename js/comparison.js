// The comparison viewer in Contact Sheet.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { follow, isLoaded, nodeOfId } from "./lib/board.js";
import { CellGrid } from "./lib/cell_grid.js";
import { openCellMenu } from "./lib/cell_menu.js";
import {
  addDrawn,
  comparisonOf,
  drawnCount,
  isSame,
  scoresOf,
  thumbnailQuery,
} from "./lib/comparison.js";
import { drawAgain, readComparison, reportAddress } from "./lib/comparison_client.js";
import { takeOver } from "./lib/core_preview.js";
import { button, h, say, show } from "./lib/dom.js";
import { plural } from "./lib/format.js";
import { freeName } from "./lib/free_name.js";
import { pathsOf, whileInGraph } from "./lib/graph.js";
import { addPanel, after, limitHeight, widgetOf } from "./lib/node_panel.js";
import { OneAtATime } from "./lib/one_at_a_time.js";
import { whenNothingIsQueued } from "./lib/queue.js";
import { Viewer } from "./lib/viewer.js";
import { settingOf } from "./lib/wires.js";

const NODE = "Likeness_ContactSheet";
const EMPTY = "The pictures appear here as they are drawn.";
const GONE = "This comparison's files are gone. Queue again to draw it.";
const DRAWING = "The pictures are being drawn.";
const PASTED = -1; // the number of a copy in what ComfyUI pastes
const WAIT = 400; // ms after the last letter of a name
const address = (query) => api.apiURL(query);
const panels = new Map(); // node -> its panel
let viewer = null;

class ComparisonPanel {
  #comparison = null;
  #scores = [];
  #wanted = null; // the name of the comparison that is to be shown
  #loads = new OneAtATime((name, known) => this.#load(name, known));
  #empty = EMPTY;

  constructor() {
    this.count = h("span", { class: "lk-count" });
    // What is read out: how many are drawn changes too often.
    this.said = h("span", { class: "lk-hidden", role: "status" });
    this.open = button({
      text: "Open",
      symbol: "expand",
      kind: "primary",
      click: () => this.#open(null),
    });
    this.bar = h("div", { class: "lk-panel-bar" }, this.count, this.open);
    this.grid = new CellGrid({
      address: (index) => address(thumbnailQuery(this.#comparison, index)),
      choose: (index) => this.#open(index),
      menu: (index, event) => this.#menu(index, event),
      fit: { least: 56, most: 240 },
    });
    this.message = h("div", { class: "lk-empty" });
    this.remark = h("div", { class: "lk-remark", role: "status" });
    const parts = [this.bar, this.remark, this.grid.element, this.message, this.said];
    this.element = h("div", { class: "lk-comparison" }, parts);
    this.#showEmpty(this.#empty);
  }

  /** Reads the comparison of a name from ComfyUI's output folder; `known` says that it was drawn. */
  load(name, known = true) {
    this.#wanted = name;
    return this.#loads.ask(name, known);
  }

  /** Reads the comparison that has the name of the node, if there is one. */
  find({ value, wired }) {
    if (!wired && value) this.load(value.normalize("NFC"), false);
  }

  async #load(name, known) {
    const found = await readComparison(name).catch((error) => ({ error }));
    if (name !== this.#wanted) return;
    try {
      this.#show(name, found, known);
    } catch (error) {
      this.#say(known ? error.message : EMPTY);
    }
  }

  #show(name, { view, scores, report, error }, known) {
    if (error) throw error;
    if (view === null) return this.#say(known ? GONE : EMPTY);
    const comparison = comparisonOf(view, name);
    comparison.report = report === true;
    this.#scores = scoresOf(scores, comparison);
    if (isSame(comparison, this.#comparison)) this.#renew(comparison);
    else this.#replace(comparison);
  }

  /** Shows cells that were just drawn, or all when it is finished. */
  drawn({ name, drawn, finished, line }) {
    // What is being read may be older than this news.
    if (finished || this.#loads.busy || this.#comparison?.name !== name) this.load(name);
    else this.#refresh(addDrawn(this.#comparison, drawn));
    // Cells done, left, and the time left.
    if (line) say(this.#comparison ? this.count : this.message, line);
    say(this.said, finished ? "All pictures are drawn." : DRAWING);
  }

  /** Nothing more is drawn for now: there is no time left to tell. */
  ended() {
    if (this.said.textContent !== DRAWING) return;
    say(this.said, "No more pictures are drawn.");
    if (this.#comparison) this.#count();
    else say(this.message, this.#empty);
  }

  #replace(comparison) {
    this.#comparison = comparison;
    show(this.message, false);
    show(this.bar, true);
    show(this.grid.element, true);
    this.grid.show(comparison);
    this.#tellRemark(comparison.remark);
    this.#count();
  }

  /** Keeps what is open and where it is scrolled to. */
  #renew({ drawn, sheet, report }) {
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
    viewer ??= new Viewer({ address, reportAddress, drawAgain });
    viewer.open(this.#comparison, this.#scores, index);
    this.#readScores(this.#comparison);
  }

  #menu(index, event) {
    const comparison = this.#comparison;
    const again = async () => {
      const text = await drawAgain(comparison, index);
      for (const place of [this.count, this.said]) say(place, text);
    };
    openCellMenu(comparison, index, event, { address, open: () => this.#open(index), again });
  }

  /** A Score node may have run since. */
  async #readScores(comparison) {
    // Where the server is away, the pictures may still be in the browser's cache.
    const found = await readComparison(comparison.name).catch(() => null);
    if (found === null || comparison !== this.#comparison) return;
    comparison.report = found.report === true;
    this.#scores = scoresOf(found.scores, comparison);
    viewer.score(comparison, this.#scores);
  }

  #count() {
    const done = drawnCount(this.#comparison);
    const count = this.#comparison.pictures.length;
    const all = plural(count, "picture");
    say(this.count, done === count ? all : `${done} of ${all}`);
  }

  #say(text) {
    say(this.said, text);
    this.#showEmpty(text);
  }

  #showEmpty(text) {
    this.#comparison = null;
    this.#empty = text;
    say(this.message, text);
    show(this.message, true);
    show(this.bar, false);
    show(this.grid.element, false);
    this.#tellRemark("");
  }

  /** What is wrong with some rows. */
  #tellRemark(text) {
    say(this.remark, text);
    show(this.remark, text !== "");
  }
}

/** The names of all other nodes of this kind. */
function otherNames(node) {
  const nodes = [...pathsOf(app.rootGraph ?? app.graph)].map((path) => path.at(-1));
  const others = nodes.filter((one) => one !== node && one.comfyClass === NODE);
  return others.map((one) => widgetOf(one, "name")?.value ?? "");
}

/** A copy would replace the files of the node that it was made from: it gets another name. */
function renameCopy(node) {
  const widget = widgetOf(node, "name");
  if (!widget || settingOf(node, "name").wired) return;
  widget.value = freeName(widget.value, otherNames(node));
}

/** Shows what has the node's name whenever that changes. */
function followName(node, panel) {
  let timer = null;
  after(widgetOf(node, "name"), "callback", () => {
    clearTimeout(timer);
    timer = setTimeout(() => panel.find(settingOf(node, "name")), WAIT);
  });
}

api.addEventListener("likeness.cells", ({ detail }) => {
  if (isLoaded(detail.workflow)) panels.get(nodeOfId(detail.node))?.drawn(detail);
});
const ended = () => panels.forEach((panel) => panel.ended());
for (const end of ["execution_interrupted", "execution_error"]) api.addEventListener(end, ended);
// Other tabs are told of neither, and nobody is after a crash.
whenNothingIsQueued(ended);

app.registerExtension({
  name: "Likeness.Comparison",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ComparisonPanel();
    whileInGraph(node, {
      added: () => panels.set(node, panel),
      removed: () => panels.delete(node),
    });
    takeOver(node);
    limitHeight(widgetOf(node, "redraw"), 56);
    addPanel(node, "likeness_comparison", panel.element, { styles: ["grid"], minHeight: 240 });
    followName(node, panel);
    const find = () => panel.find(settingOf(node, "name"));
    follow(node, "comparison", (name) => panel.load(name), find);
    after(node, "onConfigure", (saved) => {
      if (saved.id === PASTED) renameCopy(node);
    });
  },
});
