// What ComfyUI shows below the widgets of a node that runs: a line of text and a picture.
// A panel shows both at a better place.

import { hideWidget } from "./node_panel.js";

const TEXT = "$$node-text-preview"; // ComfyUI's name for the widget of that line

/** Leaves a node's line of text and its pictures to its panel. */
export function takeOver(node) {
  node.hideOutputImages = true; // in the Vue renderer
  node.onDrawBackground = () => {}; // in the classic one
  hideText(node);
}

/**
 * ComfyUI adds a widget for the line where there is none of its name, and the Vue renderer does not
 * notice when that is hidden afterwards: so one is there from the start. Nothing of it is saved or
 * queued.
 */
function hideText(node) {
  const widget = node.addWidget("text", TEXT, "", () => {}, { serialize: false });
  widget.serialize = false;
  hideWidget(widget);
}
