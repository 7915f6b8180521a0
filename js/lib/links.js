// Resolves a node's inputs through links, reroutes and subgraphs.

import { nodePaths } from "./graph.js";
import { widgetOf } from "./node_panel.js";

/**
 * The node that feeds an input, followed through reroutes and subgraph boundaries; undefined if
 * there is none. `path` is a node's path as in `nodePaths`.
 */
export function sourceOf(path, name) {
  const subgraphNodes = path.slice(0, -1);
  const node = path.at(-1);
  let graph = node?.graph;
  let id = linkOf(node, name);
  for (let hops = 0; id != null && hops < 100; hops++) {
    const link = graph?.getLink?.(id);
    if (!link) return undefined;
    const source = graph.getNodeById(link.origin_id);
    if (source?.subgraph) {
      subgraphNodes.push(source);
      graph = source.subgraph;
      id = graph.outputs?.[link.origin_slot]?.linkIds?.[0];
    } else if (source?.isVirtualNode) {
      id = source.inputs?.[0]?.link;
    } else if (source) {
      return source;
    } else {
      // The link comes from outside the subgraph.
      const subgraphNode = subgraphNodes.pop();
      id = linkOf(subgraphNode, graph.inputs?.[link.origin_slot]?.name);
      graph = subgraphNode?.graph;
    }
  }
  return undefined;
}

/**
 * {value, connected} of a widget; if `connected`, another node provides the value. A widget
 * promoted to its subgraph's nodes has their value, if all of them agree.
 */
export function resolveInput(node, name) {
  const input = inputOf(node, name);
  if (input?.link == null) return { value: inputWidget(node, name)?.value, connected: false };
  const settings = promotionsOf(node, input).map(([one, slot]) => resolveInput(one, slot));
  const agreed = settings.every(
    ({ value, connected }) => !connected && value === settings[0].value,
  );
  return settings.length && agreed ? settings[0] : { value: undefined, connected: true };
}

/** Sets what `resolveInput` returns, as if the user had; nothing if it is connected. */
export function setInput(node, name, value) {
  const input = inputOf(node, name);
  for (const [one, slot] of promotionsOf(node, input)) setInput(one, slot, value);
  const widget = inputWidget(node, name);
  if (!widget) return;
  widget.value = value;
  widget.callback?.(value);
}

/** The subgraph nodes that an input is promoted to, each with its slot's name there. */
function promotionsOf(node, input) {
  const link = node.graph?.getLink?.(input?.link);
  const outside = link && !node.graph.getNodeById(link.origin_id);
  const slot = outside ? node.graph.inputs?.[link.origin_slot] : null;
  return slot ? subgraphNodesOf(node.graph).map((one) => [one, slot.name]) : [];
}

function inputWidget(node, name) {
  return widgetOf(node, inputOf(node, name)?.widget?.name ?? name);
}

/** Whether another node provides an input's value. */
export function isConnected(node, name) {
  return resolveInput(node, name).connected;
}

function subgraphNodesOf(subgraph) {
  const nodes = [...nodePaths(subgraph.rootGraph)].map((path) => path.at(-1));
  return [...new Set(nodes)].filter((node) => node.subgraph === subgraph);
}

function inputOf(node, name) {
  return node?.inputs?.find((input) => input.name === name);
}

function linkOf(node, name) {
  return inputOf(node, name)?.link;
}
