// What ComfyUI shows below the widgets of a node that runs: a line of text and a picture.
// A panel shows both at a better place.

import { api } from "../../../scripts/api.js";
import { nodeOfId } from "./board.js";
import { hideWidget, widgetOf } from "./node_panel.js";

const TEXT = "$$node-text-preview"; // ComfyUI's name for the widget of that line

const taken = new WeakSet();
let listening = false;

/**
 * Leaves a node's line of text and its pictures to its panel. The line is not taken from here:
 * core does not say of which workflow it is, and another one's node may have the same number.
 */
export function takeOver(node) {
  node.hideOutputImages = true; // in the Vue renderer
  node.onDrawBackground = () => {}; // in the classic one
  taken.add(node);
  if (!listening) listen();
  listening = true;
}

function listen() {
  api.addEventListener("progress_text", ({ detail }) => {
    const node = nodeOfId(detail.nodeId);
    if (taken.has(node)) afterCore(() => hideText(node));
  });
}

function afterCore(then) {
  setTimeout(then);
}

function hideText(node) {
  const widget = widgetOf(node, TEXT);
  if (!widget || widget.hidden) return;
  hideWidget(widget);
  node.setDirtyCanvas?.(true, true);
}
