// The comparison viewer in Contact Sheet.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { follow, nodeOfId, recall } from "./lib/board.js";
import { CellGrid } from "./lib/cell_grid.js";
import {
  addDrawn,
  comparisonOf,
  drawnCount,
  fileQuery,
  scoresOf,
  thumbnailQuery,
} from "./lib/comparison.js";
import { button, h, say, show } from "./lib/dom.js";
import { addPanel } from "./lib/node_panel.js";
import { Viewer } from "./lib/viewer.js";

const NODE = "Likeness_ContactSheet";
const address = (query) => api.apiURL(query);
const panels = new WeakMap();
let viewer = null;

class ComparisonPanel {
  #comparison = null;
  #scores = [];

  constructor() {
    this.count = h("span", { class: "lk-count" });
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
      width: 72,
    });
    this.message = h("div", { class: "lk-empty", role: "status" });
    this.element = h("div", { class: "lk-comparison" }, this.bar, this.grid.element, this.message);
    this.#empty("The pictures appear here as they are drawn.");
  }

  /** Reads the comparison of a name from ComfyUI's output folder. */
  async load(name) {
    try {
      const answer = await fetch(address(fileQuery(name, "viewer.json")), { cache: "no-store" });
      if (!answer.ok)
        return this.#empty("This comparison's files are gone. Queue again to draw it.");
      this.#comparison = comparisonOf(await answer.json(), name);
      this.#scores = await scores(this.#comparison);
    } catch (error) {
      return this.#empty(error.message);
    }
    this.grid.show(this.#comparison);
    show(this.message, false);
    show(this.bar, true);
    show(this.grid.element, true);
    this.#count();
  }

  /** Shows cells that were just drawn. */
  async drawn(name, cells, finished) {
    if (finished || this.#comparison?.name !== name) return this.load(name);
    const indices = addDrawn(this.#comparison, cells);
    this.grid.refresh(indices);
    viewer?.refresh(this.#comparison, indices);
    this.#count();
  }

  #open(index) {
    viewer ??= new Viewer(address);
    viewer.open(this.#comparison, this.#scores, index);
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

async function scores(comparison) {
  const answer = await fetch(address(fileQuery(comparison.name, "scores.json")), {
    cache: "no-store",
  });
  return answer.ok ? scoresOf(await answer.json(), comparison) : [];
}

app.registerExtension({
  name: "Likeness.Comparison",

  setup() {
    api.addEventListener("likeness.cells", ({ detail }) => {
      panels.get(nodeOfId(detail.node))?.drawn(detail.name, detail.drawn, detail.finished);
    });
  },

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ComparisonPanel();
    panels.set(node, panel);
    node.hideOutputImages = true;
    addPanel(node, "likeness_comparison", panel.element, { styles: ["grid"], minHeight: 240 });
    follow(node, "comparison", (name) => panel.load(name));
  },

  afterConfigureGraph: recall,
});
