// Panels below a node's widgets, in the classic and the Vue renderer.

import { h, loadStyle } from "./dom.js";
import { blockShortcuts } from "./shortcuts.js";

const MARGIN = 15; // same as core's DOM widgets

/**
 * Adds `content` to a node as a panel and loads its style sheets. It fills the node's remaining
 * height: `height` pixels in a new node, at least `minHeight` and at most `maxHeight`. It never
 * resizes with its content, which would add an undo step and mark the workflow as changed. It is
 * not saved, and comes after the schema's widgets, or saved values would shift.
 */
export function addPanel(
  node,
  name,
  content,
  { styles, minHeight, maxHeight, height = minHeight, minWidth = 320 },
) {
  loadStyle(...styles);
  const element = h("div", { class: "likeness lk-panel" }, content);
  element.style.minHeight = `${minHeight - 2 * MARGIN}px`;
  blockShortcuts(element, { letters: false });
  const widget = node.addDOMWidget(name, "likeness", element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => minHeight,
    getMaxHeight: () => maxHeight,
    getValue: () => undefined,
    setValue: () => {},
  });
  widget.serialize = false;
  const [nodeWidth, nodeHeight] = node.computeSize();
  const wanted = nodeHeight + height - minHeight;
  node.setSize([Math.max(node.size[0], nodeWidth, minWidth), Math.max(node.size[1], wanted)]);
}

/** Calls `callback` after a node's or widget's method, if any, with the same arguments. */
export function chainCallback(object, method, callback) {
  const original = object[method];
  object[method] = function () {
    const result = original?.apply(this, arguments);
    callback(...arguments);
    return result;
  };
}

/** Options of a node's input in the server's schema, {} if it has none. */
export function schemaOf(node, name) {
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  return (required?.[name] ?? optional?.[name])?.[1] ?? {};
}

/** A node's widget by name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/** Hides a widget that a panel replaces; its value is still saved and queued. */
export function hideWidget(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
  widget.computeSize = () => [0, -4];
}

/** Limits a text widget's height, so that it takes no room from a panel below it. */
export function limitHeight(widget, height) {
  if (widget?.options) widget.options.getMaxHeight = () => height;
}
