// The pose picker in Pose Set. The downstream Matrix reports which pose each prompt got.

import { app } from "../../scripts/app.js";
import { h, icon, setText, setVisible, svg } from "./lib/dom.js";
import { isConnected, resolveInput, sourceOf } from "./lib/links.js";
import { addPanel, chainCallback, hideWidget, schemaOf, widgetOf } from "./lib/node_panel.js";
import { subscribe } from "./lib/node_state.js";
import { columnsByPose, drawingOf, formatSelection, parseSelection, toggled } from "./lib/poses.js";

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

  /** Shows the effective value, which may come through a link. */
  update() {
    const keypoints = isConnected(this.node, "keypoints");
    const { value, connected } = resolveInput(this.node, "poses");
    const linked = this.node.inputs?.some(({ name, link }) => name === "poses" && link != null);
    const unknown = keypoints || connected;
    const chosen = unknown ? new Set() : parseSelection(value, this.names, this.data.all);
    this.grid.classList.toggle("unused", unknown);
    this.cards.forEach((card, n) => {
      card.disabled = keypoints || Boolean(linked);
      card.setAttribute("aria-pressed", String(chosen.has(this.names[n])));
      this.#showColumns(
        card.querySelector(".lk-got"),
        keypoints ? [] : this.#columns[this.names[n]],
      );
    });
    if (keypoints) setText(this.text, "The connected keypoints are used instead.");
    else setText(this.text, linked ? "Another node chooses the poses." : this.#status(chosen));
  }

  #showColumns(got, columns = []) {
    setText(got, columns.join(", "));
    got.title = columns.join("\n");
    setVisible(got, columns.length > 0);
  }

  /** Sets which columns of a comparison got which pose. */
  setColumns(poseOfColumn) {
    this.#columns = columnsByPose(poseOfColumn);
    this.update();
  }

  #status(chosen) {
    if (chosen.size === 1) return "All images get this pose.";
    return Object.keys(this.#columns).length
      ? "Below each pose: the prompts it was assigned to."
      : "The seed assigns one of these to each prompt.";
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
    const chosen = parseSelection(this.widget.value, this.names, this.data.all);
    // Makes this one undo step: ComfyUI checks for changes before the click event.
    app.canvas.emitBeforeChange();
    this.widget.value = formatSelection(toggled(chosen, name), this.names, this.data.all);
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
    // The widget may be promoted to a subgraph node and have been changed there.
    app.canvas.canvas.addEventListener("litegraph:set-graph", ({ detail: { newGraph } }) => {
      for (const node of newGraph.nodes) panels.get(node)?.update();
    });
  },

  nodeCreated(node) {
    if (node.comfyClass === MATRIX) {
      subscribe(node, "poses", (poseOfColumn, path) =>
        panels.get(sourceOf(path, "poses"))?.setColumns(poseOfColumn),
      );
    }
    const widget = node.comfyClass === NODE && widgetOf(node, "poses");
    const { likeness_poses: data } = schemaOf(node, "poses");
    if (!widget || !data) return;
    const picker = new PosePicker(node, widget, data);
    panels.set(node, picker);
    hideWidget(widget);
    addPanel(node, "likeness_poses", picker.element, { styles: ["poses"], minHeight: 176 });
    chainCallback(node, "onConfigure", () => picker.update());
    chainCallback(node, "onConnectionsChange", () => queueMicrotask(() => picker.update()));
  },
});
