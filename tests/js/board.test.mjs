import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { load } from "./stubs.mjs";

const api = new EventTarget();
const app = {};
const heard = new Set();
const listen = api.addEventListener.bind(api);
api.addEventListener = (name, ...rest) => listen(name, ...rest, heard.add(name));
const { follow, nodeOfId, recall } = await load("lib/board.js", { api, app });
const settled = () => new Promise((done) => setTimeout(done));

/** A graph of nodes, some of which follow the board; `told` is what they were told. */
let told = [];
function graphOf(nodes, more = {}) {
  return { ...more, nodes, getNodeById: (id) => nodes.find((node) => node.id === id) };
}
let nothing = []; // nodes of which the server knows nothing, by number
function trainNode(id) {
  const node = { id };
  follow(
    node,
    "run",
    (run, path, recalled) => told.push({ run, path: path.map((one) => one.id), recalled }),
    (path) => nothing.push(path.map((one) => one.id)),
  );
  return node;
}
const answers = (board) => async () => ({ ok: true, json: async () => board });

beforeEach(() => {
  told = [];
  nothing = [];
  app.rootGraph = graphOf([], { id: "w" });
  api.fetchApi = answers({});
});

const heardBeforeAnyNode = new Set(heard);
test("a message that came before the first node was called unknown in the console", () => {
  assert.ok(heardBeforeAnyNode.has("likeness.board"));
});

test("loading a workflow does not wait for a slow server", async () => {
  api.fetchApi = () => new Promise(() => {});
  assert.equal(recall(), undefined);
  api.fetchApi = () => Promise.reject(new Error("away"));
  assert.equal(recall(), undefined);
  await settled();
});

test("many calls in a row ask once", async () => {
  let asked = 0;
  api.fetchApi = async () => {
    asked++;
    return { ok: false };
  };
  recall();
  recall();
  await settled();
  assert.equal(asked, 1);
});

test("a node that was converted to a subgraph keeps its run", async () => {
  const inner = trainNode(5);
  const holder = { id: 12, subgraph: graphOf([inner]) };
  app.rootGraph = graphOf([{ id: 3 }, holder], { id: "w" });
  api.fetchApi = answers({ 5: { run: "a" } });
  recall();
  await settled();
  assert.deepEqual(told, [{ run: "a", path: [12, 5], recalled: true }]);
  assert.equal(nodeOfId("5"), inner);
  assert.equal(nodeOfId("12:5"), inner);
  assert.equal(nodeOfId("3"), app.rootGraph.nodes[0]);
  assert.equal(nodeOfId("6"), null);
});

test("a run that a node had before it was converted does not hide its later one", async () => {
  const holder = { id: 12, subgraph: graphOf([trainNode(5)]) };
  app.rootGraph = graphOf([holder], { id: "w" });
  for (const board of [
    { "12:5": { run: "new" }, "20:5": { run: "old" } },
    { 5: { run: "old" }, "12:5": { run: "new" } },
  ]) {
    told = [];
    api.fetchApi = answers(board);
    recall();
    await settled();
    assert.deepEqual(
      told.map(({ run }) => run),
      ["old", "new"],
    );
  }
});

test("a run that began while the server was away is shown when it is back", async () => {
  app.rootGraph = graphOf([trainNode(5)], { id: "w" });
  api.fetchApi = answers({ 5: { run: "missed" } });
  api.dispatchEvent(new Event("reconnected"));
  await settled();
  assert.equal(told[0].run, "missed");
});

test("a node of which the server knows nothing finds by itself what is on the disk", async () => {
  const holder = { id: 12, subgraph: graphOf([trainNode(5)]) };
  app.rootGraph = graphOf([trainNode(3), trainNode(4), holder, { id: 6 }], { id: "w" });
  api.fetchApi = answers({ 3: { run: "a" }, 4: { poses: {} }, 99: { run: "gone" } });
  recall();
  await settled();
  assert.deepEqual(nothing, [[4], [12, 5]]);
  nothing = [];
  api.fetchApi = async () => ({ ok: false });
  recall();
  await settled();
  assert.deepEqual(nothing, [], "nobody knows whether there is nothing");
});

test("what is told of another workflow is not shown", async () => {
  app.rootGraph = graphOf([trainNode(5)], { id: "w" });
  for (const workflow of ["w", "v"]) {
    const detail = { workflow, node: "5", kind: "run", value: workflow };
    api.dispatchEvent(Object.assign(new Event("likeness.board"), { detail }));
  }
  assert.deepEqual(told, [{ run: "w", path: [5], recalled: false }]);
});
