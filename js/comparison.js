// The comparison viewer in Contact Sheet.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { follow, isLoaded, nodeOfId, recall } from "./lib/board.js";
import { CellGrid } from "./lib/cell_grid.js";
import {
  addDrawn,
  comparisonOf,
  drawnCount,
  isSame,
  scoresOf,
  thumbnailQuery,
} from "./lib/comparison.js";
import { takeOver } from "./lib/core_preview.js";
import { button, h, say, show } from "./lib/dom.js";
import { addPanel, limitHeight, widgetOf } from "./lib/node_panel.js";
import { Viewer } from "./lib/viewer.js";

const NODE = "Likeness_ContactSheet";
const GONE = "This comparison's files are gone. Queue again to draw it.";
const address = (query) => api.apiURL(query);
const panels = new WeakMap();
let viewer = null;

class ComparisonPanel {
  #comparison = null;
  #scores = [];
  #asked = 0;
  #loading = false;

  constructor() {
    this.count = h("span", { class: "lk-count", role: "status" });
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
      fit: { least: 56, most: 240 },
    });
    this.message = h("div", { class: "lk-empty", role: "status" });
    this.element = h("div", { class: "lk-comparison" }, this.bar, this.grid.element, this.message);
    this.#empty("The pictures appear here as they are drawn.");
  }

  /** Reads the comparison of a name from ComfyUI's output folder. */
  async load(name) {
    const asked = ++this.#asked;
    this.#loading = true;
    const found = await read(name).catch((error) => ({ error }));
    if (asked !== this.#asked) return;
    this.#loading = false;
    try {
      this.#show(name, found);
    } catch (error) {
      this.#empty(error.message);
    }
  }

  #show(name, { view, scores, error }) {
    if (error) throw error;
    if (view === null) return this.#empty(GONE);
    const comparison = comparisonOf(view, name);
    this.#scores = scoresOf(scores, comparison);
    if (isSame(comparison, this.#comparison)) this.#renew(comparison);
    else this.#replace(comparison);
  }

  /** Shows cells that were just drawn, or all when it is finished. */
  drawn({ name, drawn, finished, line }) {
    // What is being read may be older than this news.
    if (finished || this.#loading || this.#comparison?.name !== name) this.load(name);
    else this.#refresh(addDrawn(this.#comparison, drawn));
    // Cells done, left, and the time left.
    if (line) say(this.#comparison ? this.count : this.message, line);
  }

  #replace(comparison) {
    this.#comparison = comparison;
    show(this.message, false);
    show(this.bar, true);
    show(this.grid.element, true);
    this.grid.show(comparison);
    this.#count();
  }

  /** Keeps what is open and where it is scrolled to. */
  #renew({ drawn, sheet }) {
    const before = this.#comparison.drawn;
    const changed = [...drawn.keys()].filter((index) => drawn[index] !== before[index]);
    Object.assign(this.#comparison, { drawn, sheet });
    this.#refresh(changed);
  }

  #refresh(indices) {
    this.grid.refresh(indices);
    viewer?.refresh(this.#comparison, indices);
    this.#count();
  }

  async #open(index) {
    await this.#readScores();
    if (this.#comparison === null) return; // its files have gone meanwhile
    viewer ??= new Viewer(address);
    viewer.open(this.#comparison, this.#scores, index);
  }

  /** A Score node may have run since. */
  async #readScores() {
    try {
      this.#scores = scoresOf((await read(this.#comparison.name)).scores, this.#comparison);
    } catch {
      // The server is away: the pictures may still be in the browser's cache.
    }
  }

  #count() {
    const [done, all] = [drawnCount(this.#comparison), this.#comparison.pictures.length];
    say(this.count, done === all ? `${all} pictures` : `${done} of ${all} pictures`);
  }

  #empty(text) {
    this.#comparison = null;
    say(this.message, text);
    show(this.message, true);
    show(this.bar, false);
    show(this.grid.element, false);
  }
}

/** {view, scores} of a comparison. Throws an Error in words. */
async function read(name) {
  const answer = await api.fetchApi(`/likeness/comparison?name=${encodeURIComponent(name)}`);
  if (!answer.ok) throw new Error(`The server answered ${answer.status} ${answer.statusText}.`);
  const found = await answer.json();
  if (found.error) throw new Error(found.error);
  return found;
}

api.addEventListener("likeness.cells", ({ detail }) => {
  if (isLoaded(detail.workflow)) panels.get(nodeOfId(detail.node))?.drawn(detail);
});

app.registerExtension({
  name: "Likeness.Comparison",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ComparisonPanel();
    panels.set(node, panel);
    takeOver(node);
    limitHeight(widgetOf(node, "redraw"), 56);
    addPanel(node, "likeness_comparison", panel.element, { styles: ["grid"], minHeight: 240 });
    follow(node, "comparison", (name) => panel.load(name));
  },

  afterConfigureGraph: recall,
});
