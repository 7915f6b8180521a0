import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { load } from "./stubs.mjs";

/** As much of an element as a control needs. */
class FakeElement {
  attributes = {};
  children = [];
  dataset = {};
  listeners = {};

  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  append(...children) {
    this.children.push(...children);
  }
  addEventListener(event, listener) {
    this.listeners[event] = listener;
  }
  insertBefore(child) {
    this.children.push(child);
  }
  contains() {
    return false;
  }
  remove() {}
  get lastChild() {
    return this.children.at(-1);
  }
}

const requests = [];
let answer = null;
const api = {
  async fetchApi(address, { method }) {
    const { pathname, searchParams } = new URL(address, "http://localhost");
    requests.push([method, pathname.split("/").at(-1), ...searchParams.values()]);
    return answer(searchParams.get("name"));
  },
};
const named = (name) => ({ ok: true, json: async () => ({ name }) });
const refused = (status, data) => ({ ok: false, status, statusText: "", json: async () => data });

globalThis.document = { createElement: () => new FakeElement(), activeElement: null };
const { isLeaveOutKey, LeaveOutControl, LeftOut } = await load("lib/left_out.js", { api, app: {} });

let moved, leftOut;
beforeEach(() => {
  requests.length = 0;
  answer = named;
  moved = [];
  leftOut = new LeftOut((folder, name) => moved.push([folder, name]));
  leftOut.use("anna");
});

test("keys that leave a photograph out, and not with another key", () => {
  assert.equal(isLeaveOutKey({ key: "Delete" }), true);
  assert.equal(isLeaveOutKey({ key: "Backspace" }), true);
  assert.equal(isLeaveOutKey({ key: "d" }), false);
  for (const modifier of ["ctrlKey", "metaKey", "altKey", "shiftKey"])
    assert.equal(isLeaveOutKey({ key: "Delete", [modifier]: true }), false);
});

test("a photograph is left out and put back", async () => {
  assert.equal(leftOut.available, true);
  assert.equal(await leftOut.leaveOut("a&b.jpg"), "a&b.jpg");
  assert.equal(leftOut.count.textContent, "Left out: 1");
  assert.equal(await leftOut.putBack("a&b.jpg"), "a&b.jpg");
  assert.equal(leftOut.count.textContent, "Left out: 0");
  assert.deepEqual(requests, [
    ["POST", "leave-out", "anna", "a&b.jpg"],
    ["POST", "put-back", "anna", "a&b.jpg"],
  ]);
  const expected = [
    ["anna", "a&b.jpg"],
    ["anna", undefined],
  ];
  assert.deepEqual(moved, expected, "the panel hides it, and reads the folder");
});

test("a problem is told, and the folder is read again", async () => {
  answer = () => refused(409, { error: "b.txt is open." });
  await assert.rejects(leftOut.leaveOut("b.jpg"), {
    message: "b.jpg could not be left out. b.txt is open.",
  });
  answer = () => refused(500, null);
  await leftOut.attempt(() => leftOut.putBack("b.jpg"));
  assert.match(leftOut.problem.textContent, /^b.jpg could not be put back. The server answered 500/);
  assert.deepEqual(moved, Array(2).fill(["anna", undefined]));
  answer = named;
  await leftOut.attempt(() => leftOut.leaveOut("b.jpg"));
  assert.equal(leftOut.problem.textContent, "");
  assert.equal(leftOut.status.textContent, "b.jpg: left out");
});

test("another folder's photographs are not listed", () => {
  leftOut.show(["a.jpg"]);
  leftOut.use("anna");
  assert.equal(leftOut.count.textContent, "Left out: 1");
  leftOut.use("ben");
  assert.equal(leftOut.count.textContent, "Left out: 0");
  leftOut.use("");
  assert.equal(leftOut.available, false);
});

test("a lightbox's control knows the names that a photograph gets", async () => {
  const done = [];
  const control = new LeaveOutControl(leftOut, (problem) => done.push(problem));
  const pressed = async (repeat = false) => {
    assert.equal(control.key({ key: "Delete", repeat }), true);
    await new Promise((resume) => setTimeout(resume));
    return control.show("a.jpg");
  };
  assert.equal(control.key({ key: "ArrowLeft" }), false);
  assert.equal(control.show("a.jpg"), false);
  answer = () => named("a (1).jpg");
  assert.equal(await pressed(), true);
  assert.equal(control.element.lastChild.textContent, "Put back");
  assert.equal(await pressed(true), true, "a key that is held down leaves one out");
  answer = () => named("a (2).jpg");
  assert.equal(await pressed(), false);
  assert.equal(control.element.lastChild.textContent, "Leave out");
  assert.equal(await pressed(), true);
  assert.deepEqual(
    requests.map(([, route, , name]) => [route, name]),
    [
      ["leave-out", "a.jpg"],
      ["put-back", "a (1).jpg"],
      ["leave-out", "a (2).jpg"],
    ],
  );
  answer = () => refused(409, { error: "It is open." });
  assert.equal(await pressed(), true, "it stays where it is");
  assert.deepEqual(done, ["", "", "", "a (2).jpg could not be put back. It is open."]);
});

test("a lightbox leaves out of the folder that it was opened on", async () => {
  const control = new LeaveOutControl(leftOut, () => {});
  control.show("a.jpg");
  leftOut.use("ben");
  leftOut.show(["b.jpg"]);
  control.key({ key: "Delete" });
  await new Promise((resume) => setTimeout(resume));
  assert.deepEqual(requests, [["POST", "leave-out", "anna", "a.jpg"]]);
  assert.deepEqual(moved, [["anna", "a.jpg"]]);
  assert.equal(leftOut.count.textContent, "Left out: 1", "that of ben");
});
