// Traverses the nodes of a workflow, subgraphs included, and tracks which of ours are present.

import { chainCallback } from "./node_panel.js";

const tracked = new Map(); // node -> its `removed` callback

/** Yields the path to each node of a graph: its enclosing subgraph nodes, then the node. */
export function* nodePaths(graph, subgraphNodes = []) {
  for (const node of graph?.nodes ?? []) {
    const path = [...subgraphNodes, node];
    yield path;
    if (node.subgraph) yield* nodePaths(node.subgraph, path);
  }
}

/**
 * Calls `added` when a node enters a graph, which ComfyUI's temporary copies never do, and
 * `removed` once when it leaves.
 */
export function trackNode(node, { added, removed }) {
  chainCallback(node, "onAdded", () => {
    tracked.set(node, removed);
    added();
  });
  chainCallback(node, "onRemoved", () => untrack(node));
}

/**
 * Untracks nodes that are no longer in `root`: when another workflow is loaded, ComfyUI does not
 * call `onRemoved` for those in subgraphs.
 */
export function pruneNodes(root) {
  const present = new Set([...nodePaths(root)].map((path) => path.at(-1)));
  for (const node of [...tracked.keys()]) if (!present.has(node)) untrack(node);
}

function untrack(node) {
  const removed = tracked.get(node);
  tracked.delete(node);
  removed?.();
}
