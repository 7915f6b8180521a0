// What the server has pinned to nodes: told as it happens, and asked for after a reload.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const followers = new WeakMap(); // node -> {kind: then}
let listening = false;
let asking = null;

/**
 * Calls `then(value, path)` for what the server shows on a node, now and later; `path` is the node
 * behind the subgraph nodes that it is in.
 */
export function follow(node, kind, then) {
  const kinds = followers.get(node) ?? {};
  followers.set(node, { ...kinds, [kind]: then });
  if (!listening) api.addEventListener("likeness.board", hear);
  listening = true;
}

function hear({ detail: { workflow, node, kind, value } }) {
  if (isLoaded(workflow)) show(node, { [kind]: value });
}

/** Whether news of a workflow is for this tab; one that was queued without an id may be. */
export function isLoaded(workflow) {
  return !workflow || workflow === workflowId();
}

/** Asks what the loaded workflow's nodes show; many calls in a row ask once. */
export function recall() {
  asking ??= Promise.resolve().then(async () => {
    asking = null;
    const asked = workflowId();
    const answer = await api.fetchApi(`/likeness/board?workflow=${encodeURIComponent(asked)}`);
    if (!answer.ok) return;
    const shown = await answer.json();
    if (asked !== workflowId()) return; // another tab has come to the front
    for (const [id, kinds] of Object.entries(shown)) show(id, kinds);
  });
  return asking;
}

function workflowId() {
  return (app.rootGraph ?? app.graph)?.id ?? "";
}

function show(id, kinds) {
  const path = pathOfId(id);
  const known = followers.get(path?.at(-1)) ?? {};
  for (const [kind, value] of Object.entries(kinds)) known[kind]?.(value, path);
}

/** The node that the server calls `id`: "5", or "12:5" for node 5 inside of subgraph node 12. */
export function nodeOfId(id) {
  return pathOfId(id)?.at(-1) ?? null;
}

/** The same node behind the subgraph nodes that it is in; null if there is none. */
function pathOfId(id) {
  let graph = app.rootGraph ?? app.graph;
  const path = [];
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(Number(part));
    if (!node) return null;
    path.push(node);
    graph = node.subgraph;
  }
  return path;
}
