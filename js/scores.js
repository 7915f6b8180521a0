// The score table in the Score node.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { CoalescingTask } from "./lib/coalescing_task.js";
import { readComparison, reportUrl } from "./lib/comparison_client.js";
import { hideCorePreview } from "./lib/core_preview.js";
import { h, reportLink, setText, setVisible } from "./lib/dom.js";
import { plural } from "./lib/format.js";
import { trackNode } from "./lib/graph.js";
import { resolveInput, sourceOf } from "./lib/links.js";
import { addPanel } from "./lib/node_panel.js";
import { isCurrentWorkflow, nodeById, subscribe } from "./lib/node_state.js";
import { onQueueEmpty } from "./lib/queue.js";
import { parseScoreTable, scoreTable } from "./lib/score_table.js";

const NODE = "Likeness_Score";
const EMPTY = "The scores of each row appear here once the comparison has been scored.";
const NONE = "No scores were computed.";
const panels = new Map(); // node -> its panel

class ScorePanel {
  #loads = new CoalescingTask((name) => this.#load(name));
  #status = "";

  constructor() {
    this.status = h("span", { class: "lk-count", role: "status" });
    this.reportLink = reportLink();
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
      h("div", { class: "lk-panel-bar" }, this.status, this.reportLink),
      this.body,
      this.message,
    );
    this.#show(null, "", false);
  }

  /** Loads and shows a comparison's scores, if it has any. */
  load(name) {
    return this.#loads.run(name);
  }

  /** Shows the progress of scoring. */
  setProgress(line) {
    setText(this.status, line);
  }

  /** Scoring has stopped: restores the status line. */
  idle() {
    setText(this.status, this.#status);
  }

  async #load(name) {
    const { scores, report } = await readComparison(name).catch(() => ({}));
    this.#show(parseScoreTable(scores), name, report === true);
  }

  #show(table, name, hasReport) {
    const count = table?.measures.length ?? 0;
    this.#status = table ? `${name}: ${plural(count, "score")}` : "Scores";
    this.idle();
    if (hasReport) this.reportLink.href = reportUrl(name);
    setVisible(this.reportLink, hasReport);
    setVisible(this.body, table !== null);
    setVisible(this.message, table === null);
    if (!table) return;
    this.table.replaceChildren(count ? scoreTable(table) : h("p", {}, NONE));
    this.notes.replaceChildren(...table.notes.map((note) => h("li", {}, note)));
  }
}

/** The name of the comparison connected to a Score node, or "" if unknown. */
function connectedComparison(path) {
  const sheet = sourceOf(path, "study");
  const name = sheet && resolveInput(sheet, "name").value;
  return name ? name.normalize("NFC") : ""; // as in its folder's name
}

api.addEventListener("likeness.scoring", ({ detail }) => {
  if (!isCurrentWorkflow(detail.workflow)) return;
  panels.get(nodeById(detail.node))?.setProgress(detail.line);
});
onQueueEmpty(() => panels.forEach((panel) => panel.idle()));

app.registerExtension({
  name: "Likeness.Scores",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new ScorePanel();
    trackNode(node, {
      added: () => panels.set(node, panel),
      removed: () => panels.delete(node),
    });
    hideCorePreview(node);
    addPanel(node, "likeness_scores", panel.element, { styles: ["scores"], minHeight: 170 });
    subscribe(
      node,
      "scores",
      (name) => panel.load(name),
      (path) => {
        const name = connectedComparison(path);
        if (name) panel.load(name);
      },
    );
  },
});
