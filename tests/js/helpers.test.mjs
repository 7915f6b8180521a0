import assert from "node:assert/strict";
import { test } from "node:test";

import { CoalescingTask } from "../../js/lib/coalescing_task.js";
import { invalidate, reconcile, renderRange } from "../../js/lib/dom.js";
import { nodePaths, pruneNodes, trackNode } from "../../js/lib/graph.js";
import { errorMessage } from "../../js/lib/response_error.js";

const trackedNode = (name, log) => {
  const node = { name };
  const record = (event) => () => log.push(`${name} ${event}`);
  trackNode(node, { added: record("added"), removed: record("removed") });
  return node;
};

test("the nodes of a workflow are found in subgraphs of subgraphs", () => {
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ name }));
  b.subgraph = { nodes: [c] };
  a.subgraph = { nodes: [b] };
  assert.deepEqual(
    [...nodePaths({ nodes: [a] })].map((path) => path.map(({ name }) => name).join()),
    ["a", "a,b", "a,b,c"],
  );
  assert.deepEqual([...nodePaths(undefined)], []);
});

test("panels in subgraphs go on reading after another workflow is loaded", () => {
  const log = [];
  const [inner, outer, copy] = ["inner", "outer", "copy"].map((name) => trackedNode(name, log));
  for (const node of [inner, outer]) node.onAdded();
  pruneNodes({ nodes: [outer, { subgraph: { nodes: [inner] } }] });
  assert.deepEqual(log, ["inner added", "outer added"]);
  pruneNodes({ nodes: [outer] });
  assert.deepEqual(log.slice(2), ["inner removed"]);
  inner.onRemoved();
  outer.onRemoved();
  copy.onRemoved();
  pruneNodes({ nodes: [] });
  assert.deepEqual(log.slice(3), ["outer removed"], "once each, and not what was never there");
});

test("what a node did when it was added and removed is still done", () => {
  const log = [];
  const node = { onAdded: () => log.push("before"), onRemoved: () => log.push("at the end") };
  trackNode(node, { added: () => log.push("added"), removed: () => log.push("removed") });
  node.onAdded();
  node.onRemoved();
  assert.deepEqual(log, ["before", "added", "at the end", "removed"]);
});

test("on a slow link each load is shown, and of those that wait the last is begun", async () => {
  const begun = [];
  const ends = [];
  const loads = new CoalescingTask((name) => {
    begun.push(name);
    return new Promise((done) => ends.push(done));
  });
  const first = loads.run("a");
  loads.run("b");
  loads.run("c");
  assert.deepEqual(begun, ["a"]);
  ends.shift()();
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(begun, ["a", "c"]);
  assert.equal(loads.busy, true);
  ends.shift()();
  await first;
  assert.equal(loads.busy, false);
});

/** The part of an element that `reconcile` uses; `moved` lists the children it has placed. */
class Parent {
  children = [];
  moved = [];
  get firstChild() {
    return this.children[0] ?? null;
  }
  insertBefore(child, place) {
    this.children = this.children.filter((one) => one !== child);
    this.children.splice(place ? this.children.indexOf(place) : this.children.length, 0, child);
    this.moved.push(child.key);
  }
}

test("a button that stays in a list keeps the keyboard's focus", () => {
  const parent = new Parent();
  const make = (key) => ({
    key,
    get nextSibling() {
      return parent.children[parent.children.indexOf(this) + 1] ?? null;
    },
    remove() {
      parent.children = parent.children.filter((one) => one !== this);
    },
  });
  const show = (keys) => {
    parent.moved = [];
    const shown = reconcile(
      parent,
      [...keys].map((key) => [key, () => make(key)]),
    );
    assert.deepEqual(parent.children, shown);
    return [parent.children.map(({ key }) => key).join(""), parent.moved.join("")];
  };
  assert.deepEqual(show("abc"), ["abc", "abc"]);
  assert.deepEqual(show("abcd"), ["abcd", "d"]);
  assert.deepEqual(show("bd"), ["bd", ""]);
  assert.deepEqual(show("bxd"), ["bxd", "x"]);
  assert.deepEqual(show(""), ["", ""]);
  assert.deepEqual(show("xy"), ["xy", "xy"]);
  const [broken] = parent.children;
  invalidate(broken);
  assert.deepEqual(show("xy"), ["xy", "x"], "an image that could not be loaded is made anew");
  assert.equal(parent.children.includes(broken), false);
});

test("the cells of a scrolled grid are read out in their order", () => {
  const parent = new Parent();
  const shown = new Map();
  const make = (key) => ({
    key,
    remove() {
      parent.children = parent.children.filter((one) => one !== this);
    },
  });
  for (const range of [
    [3, 6],
    [1, 4],
    [2, 7],
    [0, 2],
    [0, 0],
  ]) {
    renderRange(shown, range, make, parent);
    const numbers = Array.from({ length: range[1] - range[0] }, (_, n) => range[0] + n);
    assert.deepEqual(
      parent.children.map(({ key }) => key),
      numbers,
    );
    assert.deepEqual([...shown.keys()].sort(), numbers);
  }
});

test("a refusal has the server's reason", async () => {
  const response = {
    status: 409,
    statusText: "Conflict",
    json: async () => ({ error: "It rests." }),
  };
  assert.equal(await errorMessage(response), "It rests.");
  const json = () => Promise.reject(new SyntaxError("no JSON"));
  assert.match(await errorMessage({ ...response, json }), /409 Conflict/);
});
