// Values that the server keeps for nodes: pushed as they change, fetched after a reload.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodePaths } from "./graph.js";

const subscribers = new WeakMap(); // node -> {kind: {onValue, onMissing}}
let isRestoring = false;

/**
 * Calls `onValue(value, path, restored)` whenever the server sends a node's value of a kind;
 * `path` is the node's path as in `nodePaths`, and `restored` marks a value that is not new.
 * Calls `onMissing(path)` if the server has no value once a workflow is loaded.
 */
export function subscribe(node, kind, onValue, onMissing = () => {}) {
  const kinds = subscribers.get(node) ?? {};
  subscribers.set(node, { ...kinds, [kind]: { onValue, onMissing } });
}

// At import: ComfyUI warns about messages that have no listener.
api.addEventListener("likeness.board", ({ detail: { workflow, node, kind, value } }) => {
  if (isCurrentWorkflow(workflow)) notify(node, { [kind]: value }, false);
});
// Messages sent while disconnected are lost.
api.addEventListener("reconnected", restore);

/** Whether a message's workflow is the one open here; without an id it may be. */
export function isCurrentWorkflow(workflow) {
  return !workflow || workflow === workflowId();
}

/**
 * Fetches the values of the loaded workflow's nodes; consecutive calls share one request. Returns
 * no promise: ComfyUI would await it, and the server may be slow or unreachable.
 */
export function restore() {
  if (isRestoring) return;
  isRestoring = true;
  queueMicrotask(() => {
    isRestoring = false;
    fetchState().catch(() => {}); // retried on "reconnected"
  });
}

async function fetchState() {
  const workflow = workflowId();
  const response = await api.fetchApi(`/likeness/board?workflow=${encodeURIComponent(workflow)}`);
  if (!response.ok) return;
  const values = Object.entries(await response.json());
  if (workflow !== workflowId()) return; // the user has switched workflows
  // A node moved into a subgraph may be known by two ids: the current one is applied last.
  const isExact = ([id]) => Number(exactPath(id) !== null);
  values.sort((one, other) => isExact(one) - isExact(other));
  const notified = new Map(); // node -> kinds
  for (const [id, kinds] of values) {
    const node = notify(id, kinds, true);
    notified.set(node, { ...notified.get(node), ...kinds });
  }
  for (const path of nodePaths(rootGraph())) {
    const node = path.at(-1);
    for (const [kind, { onMissing }] of Object.entries(subscribers.get(node) ?? {}))
      if (!Object.hasOwn(notified.get(node) ?? {}, kind)) onMissing(path);
  }
}

function rootGraph() {
  return app.rootGraph ?? app.graph;
}

function workflowId() {
  return rootGraph()?.id ?? "";
}

/** Returns the notified node, undefined if there is none. */
function notify(id, kinds, restored) {
  const path = pathById(id);
  const node = path?.at(-1);
  const known = subscribers.get(node) ?? {};
  for (const [kind, value] of Object.entries(kinds)) known[kind]?.onValue(value, path, restored);
  return node;
}

/** The node with a server id: "5", or "12:5" for node 5 inside subgraph node 12. Null if none. */
export function nodeById(id) {
  return pathById(id)?.at(-1) ?? null;
}

/** The path to that node as in `nodePaths`; null if there is none. */
function pathById(id) {
  return exactPath(id) ?? movedPath(id);
}

function exactPath(id) {
  let graph = rootGraph();
  const path = [];
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(Number(part));
    if (!node) return null;
    path.push(node);
    graph = node.subgraph;
  }
  return path;
}

/** Path of a node since moved into a subgraph, or out by undo, which keeps its number. */
function movedPath(id) {
  const number = Number(String(id).split(":").at(-1));
  for (const path of nodePaths(rootGraph())) {
    const node = path.at(-1);
    if (Number(node.id) === number && subscribers.has(node)) return path;
  }
  return null;
}
