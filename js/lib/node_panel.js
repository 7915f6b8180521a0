// A panel below a node's widgets, in the classic and in the Vue renderer.

import { h, loadStyle } from "./dom.js";
import { keepKeys } from "./keys.js";

const MARGIN = 15; // as core's own widgets

/**
 * Adds `content` to a node, with style sheets of the pack. It takes the height that the node has
 * left: `height` pixels in a new node, at least `minHeight`. Its size never follows what is shown:
 * that would be the user's to undo, and mark the workflow as changed. Nothing of it is saved with
 * the workflow, and it comes after the schema's widgets, or saved values would shift.
 */
export function addPanel(
  node,
  name,
  content,
  { styles, minHeight, height = minHeight, minWidth = 320 },
) {
  loadStyle(...styles);
  const element = h("div", { class: "likeness lk-panel" }, content);
  element.style.minHeight = `${minHeight - 2 * MARGIN}px`;
  keepKeys(element, { letters: false });
  const widget = node.addDOMWidget(name, "likeness", element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => minHeight,
    getValue: () => undefined,
    setValue: () => {},
  });
  widget.serialize = false;
  const [least, tall] = node.computeSize();
  const wanted = tall + height - minHeight;
  node.setSize([Math.max(node.size[0], least, minWidth), Math.max(node.size[1], wanted)]);
}

/** Calls `then` after a method of a node or a widget, which may have none, with its arguments. */
export function after(object, method, then) {
  const before = object[method];
  object[method] = function () {
    const result = before?.apply(this, arguments);
    then(...arguments);
    return result;
  };
}

/** What the server's schema says of a node's input, beside its type. */
export function schemaOf(node, name) {
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  return (required?.[name] ?? optional?.[name])?.[1] ?? {};
}

/** A node's widget by name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/** Hides a widget that a panel replaces; its value is saved and queued as before. */
export function hideWidget(widget) {
  widget.hidden = true;
  widget.options.hidden = true;
  widget.computeSize = () => [0, -4];
}

/** Keeps a text widget from taking the room of a panel below it. */
export function limitHeight(widget, height) {
  if (widget?.options) widget.options.getMaxHeight = () => height;
}
