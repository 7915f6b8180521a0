// While a node runs, ComfyUI shows a line of text and a preview below its widgets.
// A panel replaces both.

import { hideWidget } from "./node_panel.js";

const TEXT = "$$node-text-preview"; // ComfyUI's name for the text widget

/** Hides ComfyUI's own text and preview on a node that has a panel. */
export function hideCorePreview(node) {
  node.hideOutputImages = true; // Vue renderer
  node.onDrawBackground = () => {}; // classic renderer
  hideText(node);
}

/**
 * ComfyUI adds a text widget unless one of that name exists, and the Vue renderer ignores a later
 * change of `hidden`. So a hidden one is added up front; it is neither saved nor queued.
 */
function hideText(node) {
  const widget = node.addWidget("text", TEXT, "", () => {}, { serialize: false });
  widget.serialize = false;
  hideWidget(widget);
}
