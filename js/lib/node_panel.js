// A panel below a node's widgets, in the classic and in the Vue renderer.

import { h, loadStyle } from "./dom.js";
import { keepKeys } from "./keys.js";

const MARGIN = 15; // as core's own widgets

/**
 * Adds `content` to a node, with style sheets of the pack. It takes the height that the node has
 * left, at least `minHeight` pixels. Nothing of it is saved with the workflow, and it comes after
 * the schema's widgets, or saved values would shift. Returns a function that changes the least
 * height.
 */
export function addPanel(node, name, content, { styles, minHeight, minWidth = 320 }) {
  loadStyle(...styles);
  let height = minHeight;
  const element = h("div", { class: "likeness lk-panel" }, content);
  keepKeys(element, { letters: false });
  const widget = node.addDOMWidget(name, "likeness", element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height,
    getValue: () => undefined,
    setValue: () => {},
  });
  widget.serialize = false;
  const resize = (wanted) => {
    height = wanted;
    element.style.minHeight = `${height - 2 * MARGIN}px`;
    const [least, tall] = node.computeSize();
    node.setSize([Math.max(node.size[0], least, minWidth), Math.max(node.size[1], tall)]);
  };
  resize(minHeight);
  return resize;
}

/** Calls `then` when the node is removed. */
export function onRemoved(node, then) {
  const before = node.onRemoved;
  node.onRemoved = function () {
    then();
    return before?.apply(this, arguments);
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

/** Whether a widget's value comes from a wire. */
export function isConnected(node, name) {
  return node.inputs?.some((input) => input.name === name && input.link != null) ?? false;
}

/** Calls `then` when the node has got its saved values. */
export function onReady(node, then) {
  const before = node.onConfigure;
  node.onConfigure = function () {
    const result = before?.apply(this, arguments);
    then();
    return result;
  };
}

/**
 * The node at the other end of an input's wire, behind reroutes and the borders of subgraphs;
 * undefined if there is none. `path` is the node behind the subgraph nodes that it is in.
 */
export function sourceOf(path, name) {
  const holders = path.slice(0, -1);
  const node = path.at(-1);
  let graph = node?.graph;
  let id = linkOf(node, name);
  for (let wires = 0; id != null && wires < 100; wires++) {
    const link = graph?.getLink?.(id);
    if (!link) return undefined;
    const source = graph.getNodeById(link.origin_id);
    if (source?.subgraph) {
      holders.push(source);
      graph = source.subgraph;
      id = graph.outputs?.[link.origin_slot]?.linkIds?.[0];
    } else if (source?.isVirtualNode) {
      id = source.inputs?.[0]?.link;
    } else if (source) {
      return source;
    } else {
      // The wire comes from outside of the subgraph.
      const holder = holders.pop();
      id = linkOf(holder, graph.inputs?.[link.origin_slot]?.name);
      graph = holder?.graph;
    }
  }
  return undefined;
}

function linkOf(node, name) {
  return node?.inputs?.find((input) => input.name === name)?.link;
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
