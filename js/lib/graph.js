// The nodes of a workflow, in subgraphs too, and which of ours are still among them.

import { after } from "./node_panel.js";

const present = new Map(); // node -> what to do when it is gone

/** The path to each node of a graph: the node behind the subgraph nodes that it is in. */
export function* pathsOf(graph, holders = []) {
  for (const node of graph?.nodes ?? []) {
    const path = [...holders, node];
    yield path;
    if (node.subgraph) yield* pathsOf(node.subgraph, path);
  }
}

/**
 * Calls `added` when the node comes into a graph, which a copy that ComfyUI makes on the way never
 * does, and `removed` once when it is gone.
 */
export function whileInGraph(node, { added, removed }) {
  after(node, "onAdded", () => {
    present.set(node, removed);
    added();
  });
  after(node, "onRemoved", () => leave(node));
}

/**
 * Lets go of the nodes that are not in `root` any more: ComfyUI tells those in subgraphs nothing
 * when another workflow is loaded.
 */
export function leaveAllBut(root) {
  const there = new Set([...pathsOf(root)].map((path) => path.at(-1)));
  for (const node of [...present.keys()]) if (!there.has(node)) leave(node);
}

function leave(node) {
  const removed = present.get(node);
  present.delete(node);
  removed?.();
}
