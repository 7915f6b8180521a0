// What the server has pinned to nodes: told as it happens, and asked for after a reload.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { pathsOf } from "./graph.js";

const followers = new WeakMap(); // node -> {kind: {then, otherwise}}
let asking = false;

/**
 * Calls `then(value, path, recalled)` for what the server shows on a node, now and later; `path` is
 * the node behind the subgraph nodes that it is in, and `recalled` says that it is no news.
 * `otherwise(path)` is called when a workflow was loaded and the server knows of nothing to show.
 */
export function follow(node, kind, then, otherwise = () => {}) {
  const kinds = followers.get(node) ?? {};
  followers.set(node, { ...kinds, [kind]: { then, otherwise } });
}

// From the first: ComfyUI complains of messages that nobody listens to.
api.addEventListener("likeness.board", ({ detail: { workflow, node, kind, value } }) => {
  if (isLoaded(workflow)) show(node, { [kind]: value }, false);
});
// What was told meanwhile is lost.
api.addEventListener("reconnected", recall);

/** Whether news of a workflow is for this tab; one that was queued without an id may be. */
export function isLoaded(workflow) {
  return !workflow || workflow === workflowId();
}

/**
 * Asks what the loaded workflow's nodes show; many calls in a row ask once. Returns nothing to wait
 * for: ComfyUI would, and the server may be slow or away.
 */
export function recall() {
  if (asking) return;
  asking = true;
  queueMicrotask(() => {
    asking = false;
    ask().catch(() => {}); // asked again when the server is back
  });
}

async function ask() {
  const asked = workflowId();
  const answer = await api.fetchApi(`/likeness/board?workflow=${encodeURIComponent(asked)}`);
  if (!answer.ok) return;
  const shown = Object.entries(await answer.json());
  if (asked !== workflowId()) return; // another tab has come to the front
  // A node that is in a subgraph now may be known by two names: the present one counts.
  const isExact = ([id]) => Number(exactPath(id) !== null);
  shown.sort((one, other) => isExact(one) - isExact(other));
  const told = new Map(); // node -> kinds
  for (const [id, kinds] of shown) {
    const node = show(id, kinds, true);
    told.set(node, { ...told.get(node), ...kinds });
  }
  for (const path of pathsOf(rootGraph())) {
    const node = path.at(-1);
    for (const [kind, { otherwise }] of Object.entries(followers.get(node) ?? {}))
      if (!Object.hasOwn(told.get(node) ?? {}, kind)) otherwise(path);
  }
}

function rootGraph() {
  return app.rootGraph ?? app.graph;
}

function workflowId() {
  return rootGraph()?.id ?? "";
}

/** Returns the node that was told, undefined if there is none. */
function show(id, kinds, recalled) {
  const path = pathOfId(id);
  const node = path?.at(-1);
  const known = followers.get(node) ?? {};
  for (const [kind, value] of Object.entries(kinds)) known[kind]?.then(value, path, recalled);
  return node;
}

/** The node that the server calls `id`: "5", or "12:5" for node 5 inside of subgraph node 12. */
export function nodeOfId(id) {
  return pathOfId(id)?.at(-1) ?? null;
}

/** The same node behind the subgraph nodes that it is in; null if there is none. */
function pathOfId(id) {
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

/** Of a node that was put into a subgraph since, or out of one by undo: it has kept its number. */
function movedPath(id) {
  const number = Number(String(id).split(":").at(-1));
  for (const path of pathsOf(rootGraph())) {
    const node = path.at(-1);
    if (Number(node.id) === number && followers.has(node)) return path;
  }
  return null;
}
