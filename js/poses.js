// The pose picker in Pose Set. Which pose each prompt got is told by the Matrix behind it.

import { app } from "../../scripts/app.js";
import { follow } from "./lib/board.js";
import { h, icon, say, show, svg } from "./lib/dom.js";
import { addPanel, after, hideWidget, schemaOf, widgetOf } from "./lib/node_panel.js";
import { chosenOf, columnsOf, drawingOf, textOf, toggled } from "./lib/poses.js";
import { isConnected, settingOf, sourceOf } from "./lib/wires.js";

const NODE = "Likeness_PoseSet";
const MATRIX = "Likeness_Matrix";
const panels = new WeakMap();

class PosePicker {
  #columns = {};

  constructor(node, widget, data) {
    this.node = node;
    this.widget = widget;
    this.data = data;
    this.names = this.data.poses.map((pose) => pose.name);
    this.cards = this.data.poses.map((pose) => this.#card(pose));
    this.grid = h("div", { class: "lk-poses", role: "group", "aria-label": "Poses" }, this.cards);
    this.text = h("p", { class: "lk-poses-text", role: "status" });
    this.element = h("div", { class: "lk-picker" }, this.grid, this.text);
    this.update();
  }

  /** Shows the value that counts, which a wire may give. */
  update() {
    const keypoints = isConnected(this.node, "keypoints");
    const { value, wired } = settingOf(this.node, "poses");
    const linked = this.node.inputs?.some(({ name, link }) => name === "poses" && link != null);
    const unknown = keypoints || wired;
    const chosen = unknown ? new Set() : chosenOf(value, this.names, this.data.all);
    this.grid.classList.toggle("unused", unknown);
    this.cards.forEach((card, n) => {
      card.disabled = keypoints || Boolean(linked);
      card.setAttribute("aria-pressed", String(chosen.has(this.names[n])));
      this.#showColumns(
        card.querySelector(".lk-got"),
        keypoints ? [] : this.#columns[this.names[n]],
      );
    });
    if (keypoints) say(this.text, "The connected keypoints are used instead.");
    else say(this.text, linked ? "Another node chooses the poses." : this.#status(chosen));
  }

  #showColumns(got, columns = []) {
    say(got, columns.join(", "));
    got.title = columns.join("\n");
    show(got, columns.length > 0);
  }

  /** Shows which columns of a comparison got which pose. */
  choose(poseOfColumn) {
    this.#columns = columnsOf(poseOfColumn);
    this.update();
  }

  #status(chosen) {
    if (chosen.size === 1) return "All pictures get this pose.";
    return Object.keys(this.#columns).length
      ? "Below each pose: the prompts that the seed gave it."
      : "The seed gives each prompt one of these.";
  }

  #card(pose) {
    return h(
      "button",
      {
        type: "button",
        class: "lk-pose",
        "aria-label": pose.name,
        on: { click: () => this.#toggle(pose.name) },
      },
      drawn(pose, this.data),
      h("span", { class: "lk-tick" }, icon("check")),
      h("span", { class: "lk-name" }, pose.name),
      h("span", { class: "lk-got" }),
    );
  }

  #toggle(name) {
    const chosen = chosenOf(this.widget.value, this.names, this.data.all);
    // A step of undo of its own: ComfyUI has looked for changes before the click comes.
    app.canvas.emitBeforeChange();
    this.widget.value = textOf(toggled(chosen, name), this.names, this.data.all);
    this.widget.callback?.(this.widget.value);
    app.canvas.emitAfterChange();
    this.node.graph?.setDirtyCanvas?.(true, true);
    this.update();
  }
}

function drawn(pose, { limbs, colours }) {
  const drawing = drawingOf(pose, limbs, colours);
  return svg(
    "svg",
    {
      viewBox: `0 0 ${drawing.width} 100`,
      "aria-hidden": "true",
      preserveAspectRatio: "xMidYMid meet",
    },
    drawing.limbs.map(({ from, to, colour }) =>
      svg("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: colour }),
    ),
    drawing.joints.map(({ at, colour }) =>
      svg("circle", { cx: at[0], cy: at[1], r: 1.3, fill: colour }),
    ),
  );
}

app.registerExtension({
  name: "Likeness.Poses",

  setup() {
    // The widget may be shown on a subgraph node, and have been changed there.
    app.canvas.canvas.addEventListener("litegraph:set-graph", ({ detail: { newGraph } }) => {
      for (const node of newGraph.nodes) panels.get(node)?.update();
    });
  },

  nodeCreated(node) {
    if (node.comfyClass === MATRIX) {
      follow(node, "poses", (chosen, path) => panels.get(sourceOf(path, "poses"))?.choose(chosen));
    }
    const widget = node.comfyClass === NODE && widgetOf(node, "poses");
    const { likeness_poses: data } = schemaOf(node, "poses");
    if (!widget || !data) return;
    const picker = new PosePicker(node, widget, data);
    panels.set(node, picker);
    hideWidget(widget);
    addPanel(node, "likeness_poses", picker.element, { styles: ["poses"], minHeight: 176 });
    after(node, "onConfigure", () => picker.update());
    after(node, "onConnectionsChange", () => queueMicrotask(() => picker.update()));
  },
});
