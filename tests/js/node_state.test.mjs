import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { load } from "./stubs.mjs";

const api = new EventTarget();
const app = {};
const listenedTo = new Set();
const listen = api.addEventListener.bind(api);
api.addEventListener = (name, ...rest) => listen(name, ...rest, listenedTo.add(name));
const { subscribe, nodeById, restore } = await load("lib/node_state.js", { api, app });
const settled = () => new Promise((done) => setTimeout(done));

let received = []; // by subscribed nodes
let missing = []; // paths, by id, of nodes for which the server has no value
function graphOf(nodes, more = {}) {
  return { ...more, nodes, getNodeById: (id) => nodes.find((node) => node.id === id) };
}
function trainNode(id) {
  const node = { id };
  subscribe(
    node,
    "run",
    (run, path, restored) => received.push({ run, path: path.map((one) => one.id), restored }),
    (path) => missing.push(path.map((one) => one.id)),
  );
  return node;
}
const respondWith = (values) => async () => ({ ok: true, json: async () => values });

beforeEach(() => {
  received = [];
  missing = [];
  app.rootGraph = graphOf([], { id: "w" });
  api.fetchApi = respondWith({});
});

const listenedToAtImport = new Set(listenedTo);
test("a message that came before the first node was called unknown in the console", () => {
  assert.ok(listenedToAtImport.has("likeness.board"));
});

test("loading a workflow does not wait for a slow server", async () => {
  api.fetchApi = () => new Promise(() => {});
  assert.equal(restore(), undefined);
  api.fetchApi = () => Promise.reject(new Error("away"));
  assert.equal(restore(), undefined);
  await settled();
});

test("many calls in a row ask once", async () => {
  let requests = 0;
  api.fetchApi = async () => {
    requests++;
    return { ok: false };
  };
  restore();
  restore();
  await settled();
  assert.equal(requests, 1);
});

test("a node that was converted to a subgraph keeps its run", async () => {
  const inner = trainNode(5);
  const subgraphNode = { id: 12, subgraph: graphOf([inner]) };
  app.rootGraph = graphOf([{ id: 3 }, subgraphNode], { id: "w" });
  api.fetchApi = respondWith({ 5: { run: "a" } });
  restore();
  await settled();
  assert.deepEqual(received, [{ run: "a", path: [12, 5], restored: true }]);
  assert.equal(nodeById("5"), inner);
  assert.equal(nodeById("12:5"), inner);
  assert.equal(nodeById("3"), app.rootGraph.nodes[0]);
  assert.equal(nodeById("6"), null);
});

test("a run that a node had before it was converted does not hide its later one", async () => {
  const subgraphNode = { id: 12, subgraph: graphOf([trainNode(5)]) };
  app.rootGraph = graphOf([subgraphNode], { id: "w" });
  for (const values of [
    { "12:5": { run: "new" }, "20:5": { run: "old" } },
    { 5: { run: "old" }, "12:5": { run: "new" } },
  ]) {
    received = [];
    api.fetchApi = respondWith(values);
    restore();
    await settled();
    assert.deepEqual(
      received.map(({ run }) => run),
      ["old", "new"],
    );
  }
});

test("a run that began while the server was away is shown when it is back", async () => {
  app.rootGraph = graphOf([trainNode(5)], { id: "w" });
  api.fetchApi = respondWith({ 5: { run: "missed" } });
  api.dispatchEvent(new Event("reconnected"));
  await settled();
  assert.equal(received[0].run, "missed");
});

test("a node of which the server knows nothing finds by itself what is on the disk", async () => {
  const subgraphNode = { id: 12, subgraph: graphOf([trainNode(5)]) };
  app.rootGraph = graphOf([trainNode(3), trainNode(4), subgraphNode, { id: 6 }], { id: "w" });
  api.fetchApi = respondWith({ 3: { run: "a" }, 4: { poses: {} }, 99: { run: "gone" } });
  restore();
  await settled();
  assert.deepEqual(missing, [[4], [12, 5]]);
  missing = [];
  api.fetchApi = async () => ({ ok: false });
  restore();
  await settled();
  assert.deepEqual(missing, [], "nobody knows whether there is nothing");
});

test("what is told of another workflow is not shown", async () => {
  app.rootGraph = graphOf([trainNode(5)], { id: "w" });
  for (const workflow of ["w", "v"]) {
    const detail = { workflow, node: "5", kind: "run", value: workflow };
    api.dispatchEvent(Object.assign(new Event("likeness.board"), { detail }));
  }
  assert.deepEqual(received, [{ run: "w", path: [5], restored: false }]);
});
