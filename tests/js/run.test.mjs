import assert from "node:assert/strict";
import { test } from "node:test";

import { RunReader } from "../../js/lib/run_client.js";
import { addEvents, emptyRun, filmstrip, secondsLeft } from "../../js/lib/run_state.js";

const event = (kind, data = {}) => ({ v: 1, kind, time: 0, ...data });
const step = (number, more = {}) =>
  event("step", {
    step: number,
    total: 20,
    loss: 0.5,
    instance_loss: 0.4,
    prior_loss: 0.1,
    learning_rate: 1e-4,
    seconds: 2,
    memory: 7,
    ...more,
  });
const runOf = (...events) => addEvents(emptyRun(), events);

test("a run from its start to its end", () => {
  const run = runOf(event("stage", { name: "load", done: 0, total: 0 }));
  assert.equal(run.status, "running");
  addEvents(run, [event("stage", { name: "train", done: 0, total: 0 }), step(1), step(2)]);
  assert.deepEqual([run.step, run.total, run.memory, run.series.points.length], [2, 20, 7, 2]);
  assert.equal(secondsLeft(run), 36);
  addEvents(run, [event("saved", { path: "/x/a.safetensors" }), event("finished", { seconds: 9 })]);
  assert.deepEqual(
    [run.status, run.saved, run.seconds, secondsLeft(run)],
    ["finished", "/x/a.safetensors", 9, null],
  );
});

test("one slow step changes the time left by a tenth", () => {
  const run = runOf(step(1), step(2), step(3, { seconds: 12 }));
  assert.equal(Math.round(secondsLeft(run)), 17 * 3);
});

test("the time left is of the class images while they are drawn", () => {
  const drawn = (done, time) => ({
    ...event("stage", { name: "class images", done, total: 200 }),
    time,
  });
  const begun = { ...event("stage", { name: "class images", done: 0, total: 0 }), time: 999 };
  const run = runOf(begun, drawn(40, 1000));
  assert.equal(secondsLeft(run), null);
  addEvents(run, [drawn(48, 1040), drawn(60, 1100)]);
  assert.equal(secondsLeft(run), 140 * 5);
  addEvents(run, [drawn(0, 2000), drawn(10, 2010)]); // drawn anew: another beginning
  assert.equal(secondsLeft(run), 190);
  addEvents(run, [event("stage", { name: "train", done: 0, total: 0 })]);
  assert.equal(secondsLeft(run), null);
});

test("the notices of an attempt that resumes are there once", () => {
  const notice = (text) => event("notice", { text });
  const run = runOf(notice("a"), notice("b"), notice(""), notice(5), notice("a"));
  assert.deepEqual(run.notices, ["b", "a"]);
});

test("adapters saved during training are counted", () => {
  const adapter = (step) => event("adapter", { step, path: `/x/a-step${step}.safetensors` });
  assert.equal(runOf(step(1), adapter(10), adapter(20)).adapters, 2);
});

test("a stopped run stays stopped, and one that failed goes on when it is tried again", () => {
  assert.equal(
    runOf(step(5), event("stopped", { step: 5 }), event("finished", { seconds: 1 })).status,
    "stopped",
  );
  const run = runOf(step(5), event("failed", { message: "out of memory", expected: true }));
  assert.deepEqual([run.status, run.message], ["failed", "out of memory"]);
  addEvents(run, [event("stage", { name: "load", done: 0, total: 0 })]);
  assert.deepEqual([run.status, run.message], ["running", ""]);
});

test("a resumed run loses the previews that came after its checkpoint", () => {
  const preview = (number) =>
    event("preview", { step: number, index: 0, path: `samples/${number}.png` });
  const run = runOf(step(1), preview(1), step(10), preview(10), step(2));
  assert.deepEqual(
    run.previews.map((one) => one.step),
    [1],
  );
});

test("the same preview is there once, in rows and columns", () => {
  const preview = (number, index) =>
    event("preview", { step: number, index, path: "samples/x.png" });
  const run = runOf(preview(200, 0), preview(100, 1), preview(200, 0), preview(100, 0));
  assert.equal(run.previews.length, 3);
  assert.deepEqual(filmstrip(run.previews), { steps: [100, 200], prompts: [0, 1] });
});

test("events of a newer version, unknown kinds and damaged ones change nothing", () => {
  const bad = [
    { ...step(3), v: 2 },
    null,
    5,
    "text",
    [],
    {},
    event("sparkle"),
    event("constructor"),
    event("__proto__"),
    step(-1),
    step("3"),
    step(1.5),
    event("preview", { step: 1, index: 0 }),
    event("validation", { step: 1, loss: "low" }),
  ];
  assert.deepEqual(addEvents(emptyRun(), bad), emptyRun());
});

test("a step without a loss is a gap", () => {
  assert.equal(runOf(step(1, { loss: null })).series.points[0].loss, null);
});

// Reading through the server

function server(blocks) {
  const requests = [];
  const fetchApi = async (path) => {
    requests.push(path);
    const block = blocks.shift();
    if (block instanceof Error) throw block;
    return typeof block === "number"
      ? { ok: false, status: block }
      : { ok: true, json: async () => block };
  };
  return { requests, fetchApi };
}

test("a run is read block by block until it ends", async () => {
  const { requests, fetchApi } = server([
    { events: [step(1)], next: 100, working: true },
    { events: [event("finished", { seconds: 3 })], next: 150, working: false },
    { events: [], next: 150, working: false },
  ]);
  const statuses = [];
  const reader = new RunReader("a/b", fetchApi, (state) => statuses.push(state.status));
  await reader.read();
  assert.deepEqual(
    requests.map((path) => path.split("start=")[1]),
    ["0", "100", "150"],
  );
  assert.ok(requests[0].startsWith("/likeness/runs/a%2Fb"));
  assert.equal(statuses.at(-1), "finished");
  assert.equal(reader.isActive, false);
});

test("a deleted run folder is said", async () => {
  const { fetchApi } = server([404]);
  const statuses = [];
  await new RunReader("x", fetchApi, (state) => statuses.push(state.status)).read();
  assert.deepEqual(statuses, ["gone"]);
});

test("a server that is away is asked again", async () => {
  const { fetchApi } = server([new Error("away")]);
  const reader = new RunReader("x", fetchApi, () => {});
  await reader.read();
  assert.equal(reader.isActive, true);
  reader.stop();
});

test("a run that nobody trains any more is not waited for", async () => {
  const { fetchApi } = server([
    { events: [step(1)], next: 100, working: false },
    { events: [], next: 100, working: false },
  ]);
  const statuses = [];
  const reader = new RunReader("x", fetchApi, (state) => statuses.push(state.status));
  await reader.read();
  assert.equal(statuses.at(-1), "cancelled");
  assert.equal(reader.isActive, false);
});

test("a run of another version is said", async () => {
  const blocks = [
    { events: [{ ...step(1), v: 2 }], next: 100, working: false },
    { events: [], next: 100, working: false },
  ];
  const statuses = [];
  await new RunReader("x", server(blocks).fetchApi, (state) => statuses.push(state.status)).read();
  assert.equal(statuses.at(-1), "unreadable");
});

test("a run that has said nothing yet is waited for", async () => {
  const { fetchApi } = server([{ events: [], next: 0, working: false }]);
  const reader = new RunReader("x", fetchApi, () => {});
  await reader.read();
  assert.equal(reader.isActive, true);
  reader.stop();
});

test("a run whose process ended before its first word is waited for no longer", async () => {
  const silent = { events: [], next: 0, working: false };
  const { fetchApi } = server([silent, silent]);
  const statuses = [];
  const reader = new RunReader("x", fetchApi, (state) => statuses.push(state.status));
  await reader.read();
  await reader.end();
  assert.deepEqual(statuses, ["starting", "cancelled"]);
  assert.equal(reader.isActive, false);
});

test("a reader says whether the state is of all that was said", async () => {
  const { fetchApi } = server([
    { events: [step(1)], next: 100, working: true },
    { events: [], next: 100, working: true },
  ]);
  const caughtUp = [];
  const reader = new RunReader("x", fetchApi, () => caughtUp.push(reader.isCaughtUp));
  await reader.read();
  reader.stop();
  assert.deepEqual(caughtUp, [false, true]);
});

test("a reader that is stopped while the server answers says no more", async () => {
  for (const answer of [{ events: [step(1)], next: 100, working: true }, 404]) {
    const statuses = [];
    const { fetchApi } = server([answer]);
    const reader = new RunReader(
      "x",
      async (path) => {
        const found = await fetchApi(path);
        reader.stop(); // another run is followed now
        return found;
      },
      (state) => statuses.push(state.status),
    );
    await reader.read();
    assert.deepEqual(statuses, []);
  }
});

test("a stopped run that goes on has neither the time nor the file of before", () => {
  const run = runOf(
    step(5),
    event("saved", { path: "/x/old.safetensors" }),
    event("stopped", { step: 5 }),
    event("finished", { seconds: 9 }),
    event("stage", { name: "load", done: 0, total: 0 }),
  );
  assert.deepEqual([run.status, run.saved, run.seconds], ["running", null, null]);
});

test("a resumed run loses the validation losses that came after its checkpoint", () => {
  const validation = (number) => event("validation", { step: number, loss: 0.5 });
  const run = runOf(step(1), validation(1), step(10), validation(10), step(2));
  assert.deepEqual(
    run.validation.map((one) => one.step),
    [1],
  );
});

test("a run whose processes restart is not shown as failed", () => {
  const text = "the next start uses tier 'checkpointing'";
  const failed = event("failed", { message: "connection closed by peer", expected: false });
  const run = runOf(step(1), event("restart", { text }), failed, event("stopped", { step: 1 }));
  assert.equal(run.status, "running");
  assert.deepEqual(run.notices, [text]);
  addEvents(run, [event("stage", { name: "load", done: 0, total: 0 }), failed]);
  assert.equal(run.status, "failed");
});

test("a finished run is read until its process has ended", async () => {
  const end = { events: [event("finished", { seconds: 3 })], next: 50, working: true };
  const { fetchApi } = server([end, { ...end, events: [] }, { ...end, events: [], working: false }]);
  const working = [];
  const reader = new RunReader("x", fetchApi, () => working.push(reader.isWorking));
  await reader.read();
  assert.deepEqual(working, [true, true]);
  await reader.read();
  assert.equal(reader.isWorking, false);
  reader.stop();
});

test("an error of the server leaves a run as it was", async () => {
  const { fetchApi } = server([500]);
  const reader = new RunReader("x", fetchApi, () => {});
  await reader.read();
  assert.equal(reader.state.status, "starting");
  reader.stop();
});

test("what ends while it is read is read to its end", async () => {
  const silent = { events: [], next: 0, working: true };
  const last = { events: [event("finished", { seconds: 3 })], next: 50, working: false };
  const blocks = [silent, last, { events: [], next: 50, working: false }];
  const { fetchApi } = server(blocks);
  const reader = new RunReader("x", fetchApi, () => {});
  const first = reader.read();
  reader.end();
  await first;
  assert.equal(reader.state.status, "finished");
});
