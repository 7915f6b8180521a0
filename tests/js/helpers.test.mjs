import assert from "node:assert/strict";
import { test } from "node:test";

import { discard, renew, showRange } from "../../js/lib/dom.js";
import { leaveAllBut, pathsOf, whileInGraph } from "../../js/lib/graph.js";
import { OneAtATime } from "../../js/lib/one_at_a_time.js";
import { reasonOf } from "../../js/lib/refusal.js";

const known = (name, log) => {
  const node = { name };
  const say = (what) => () => log.push(`${name} ${what}`);
  whileInGraph(node, { added: say("added"), removed: say("removed") });
  return node;
};

test("the nodes of a workflow are found in subgraphs of subgraphs", () => {
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ name }));
  b.subgraph = { nodes: [c] };
  a.subgraph = { nodes: [b] };
  assert.deepEqual(
    [...pathsOf({ nodes: [a] })].map((path) => path.map(({ name }) => name).join()),
    ["a", "a,b", "a,b,c"],
  );
  assert.deepEqual([...pathsOf(undefined)], []);
});

test("panels in subgraphs go on reading after another workflow is loaded", () => {
  const log = [];
  const [inner, outer, copy] = ["inner", "outer", "copy"].map((name) => known(name, log));
  for (const node of [inner, outer]) node.onAdded();
  leaveAllBut({ nodes: [outer, { subgraph: { nodes: [inner] } }] });
  assert.deepEqual(log, ["inner added", "outer added"]);
  leaveAllBut({ nodes: [outer] });
  assert.deepEqual(log.slice(2), ["inner removed"]);
  inner.onRemoved();
  outer.onRemoved();
  copy.onRemoved();
  leaveAllBut({ nodes: [] });
  assert.deepEqual(log.slice(3), ["outer removed"], "once each, and not what was never there");
});

test("what a node did when it was added and removed is still done", () => {
  const log = [];
  const node = { onAdded: () => log.push("before"), onRemoved: () => log.push("at the end") };
  whileInGraph(node, { added: () => log.push("added"), removed: () => log.push("removed") });
  node.onAdded();
  node.onRemoved();
  assert.deepEqual(log, ["before", "added", "at the end", "removed"]);
});

test("on a slow link each load is shown, and of those that wait the last is begun", async () => {
  const begun = [];
  const ends = [];
  const loads = new OneAtATime((name) => {
    begun.push(name);
    return new Promise((done) => ends.push(done));
  });
  const first = loads.ask("a");
  loads.ask("b");
  loads.ask("c");
  assert.deepEqual(begun, ["a"]);
  ends.shift()();
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(begun, ["a", "c"]);
  assert.equal(loads.busy, true);
  ends.shift()();
  await first;
  assert.equal(loads.busy, false);
});

/** As much of an element as `renew` uses; `moved` are the children that were put somewhere. */
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
    const shown = renew(
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
  discard(broken);
  assert.deepEqual(show("xy"), ["xy", "x"], "a picture that could not be loaded is made anew");
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
    showRange(shown, range, make, parent);
    const numbers = Array.from({ length: range[1] - range[0] }, (_, n) => range[0] + n);
    assert.deepEqual(
      parent.children.map(({ key }) => key),
      numbers,
    );
    assert.deepEqual([...shown.keys()].sort(), numbers);
  }
});

test("a refusal has the server's reason", async () => {
  const answer = {
    status: 409,
    statusText: "Conflict",
    json: async () => ({ error: "It rests." }),
  };
  assert.equal(await reasonOf(answer), "It rests.");
  const json = () => Promise.reject(new SyntaxError("no JSON"));
  assert.match(await reasonOf({ ...answer, json }), /409 Conflict/);
});
