// The table of scores in Score.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { follow, isLoaded, nodeOfId } from "./lib/board.js";
import { readComparison, reportAddress } from "./lib/comparison_client.js";
import { takeOver } from "./lib/core_preview.js";
import { h, reportLink, say, show } from "./lib/dom.js";
import { plural } from "./lib/format.js";
import { whileInGraph } from "./lib/graph.js";
import { addPanel } from "./lib/node_panel.js";
import { OneAtATime } from "./lib/one_at_a_time.js";
import { whenNothingIsQueued } from "./lib/queue.js";
import { scoreTable, tableOf } from "./lib/score_table.js";
import { settingOf, sourceOf } from "./lib/wires.js";

const NODE = "Likeness_Score";
const EMPTY = "The scores of each row appear here when the comparison is measured.";
const NONE = "Nothing was measured.";
const panels = new Map(); // node -> its panel

class ScorePanel {
  #loads = new OneAtATime((name) => this.#load(name));
  #status = "";

  constructor() {
    this.status = h("span", { class: "lk-count", role: "status" });
    this.report = reportLink();
    this.table = h("div");
    this.notes = h("ul", { class: "lk-score-notes" });
    this.body = h(
      "div",
      { class: "lk-scroll", tabindex: "0", dataset: { captureWheel: "true" } },
      this.table,
      this.notes,
    );
    this.message = h("div", { class: "lk-empty" }, EMPTY);
    this.element = h(
      "div",
      { class: "lk-score-panel" },
      h("div", { class: "lk-panel-bar" }, this.status, this.report),
      this.body,
      this.message,
    );
    this.#show(null, "", false);
  }

  /** Shows the scores of a comparison, if it has any. */
  load(name) {
    return this.#loads.ask(name);
  }

  /** Says what goes on. */
  say(line) {
    say(this.status, line);
  }

  /** Nothing goes on any more. */
  idle() {
    say(this.status, this.#status);
  }

  async #load(name) {
    const { scores, report } = await readComparison(name).catch(() => ({}));
    this.#show(tableOf(scores), name, report === true);
  }

  #show(table, name, hasReport) {
    const count = table?.measures.length ?? 0;
    this.#status = table ? `${name}: ${plural(count, "score")}` : "Scores";
    this.idle();
    if (hasReport) this.report.href = reportAddress(name);
    show(this.report, hasReport);
    show(this.body, table !== null);
    show(this.message, table === null);
    if (!table) return;
    this.table.replaceChildren(count ? scoreTable(table) : h("p", {}, NONE));
    this.notes.replaceChildren(...table.notes.map((note) => h("li", {}, note)));
  }
}

/** The name of the comparison that a Score node is connected to, "" if it is not known. */
function connected(path) {
  const sheet = sourceOf(path, "study");
  const name = sheet && settingOf(sheet, "name").value;
  return name ? name.normalize("NFC") : ""; // as its folder has it
}

api.addEventListener("likeness.scoring", ({ detail }) => {
  if (isLoaded(detail.workflow)) panels.get(nodeOfId(detail.node))?.say(detail.line);
});
whenNothingIsQueued(() => panels.forEach((panel) => panel.idle()));

app.registerExtension({
  name: "Likeness.Scores",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ScorePanel();
    whileInGraph(node, {
      added: () => panels.set(node, panel),
      removed: () => panels.delete(node),
    });
    takeOver(node);
    addPanel(node, "likeness_scores", panel.element, { styles: ["scores"], minHeight: 170 });
    follow(
      node,
      "scores",
      (name) => panel.load(name),
      (path) => {
        const name = connected(path);
        if (name) panel.load(name);
      },
    );
  },
});
