// What is at the other end of a node's inputs.

import { pathsOf } from "./graph.js";
import { widgetOf } from "./node_panel.js";

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

/**
 * {value, wired} of a widget: `wired` where another node gives its value. A widget that is shown on
 * the subgraph nodes around its node has their value, if they have the same.
 */
export function settingOf(node, name) {
  const input = inputOf(node, name);
  const widget = widgetOf(node, input?.widget?.name ?? name);
  if (input?.link == null) return { value: widget?.value, wired: false };
  const link = node.graph?.getLink?.(input.link);
  const outside = link && !node.graph.getNodeById(link.origin_id);
  const slot = outside ? node.graph.inputs?.[link.origin_slot] : null;
  const settings = slot ? holdersOf(node.graph).map((one) => settingOf(one, slot.name)) : [];
  const agreed = settings.every(({ value, wired }) => !wired && value === settings[0].value);
  return settings.length && agreed ? settings[0] : { value: undefined, wired: true };
}

/** Whether another node gives an input's value. */
export function isConnected(node, name) {
  return settingOf(node, name).wired;
}

function holdersOf(subgraph) {
  const nodes = [...pathsOf(subgraph.rootGraph)].map((path) => path.at(-1));
  return [...new Set(nodes)].filter((node) => node.subgraph === subgraph);
}

function inputOf(node, name) {
  return node?.inputs?.find((input) => input.name === name);
}

function linkOf(node, name) {
  return inputOf(node, name)?.link;
}
