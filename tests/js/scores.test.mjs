import assert from "node:assert/strict";
import { test } from "node:test";

import { bestRow, parseScoreTable } from "../../js/lib/score_table.js";
import { uniqueName } from "../../js/lib/unique_name.js";

const mean = (value) => ({ mean: value, low: value - 0.1, high: value + 0.1 });
const DATA = {
  version: 1,
  row_names: ["base", "<b>r4</b>"],
  measures: [
    {
      key: "subject.clip",
      label: "subject match",
      encoder: "CLIP",
      meaning: "m",
      better: "higher",
    },
    { key: "drift.clip", label: "class drift", encoder: "CLIP", meaning: "", better: "lower" },
  ],
  rows: { "subject.clip": [mean(0.2), mean(0.5)], "drift.clip": [null, mean(0.3)] },
  photographs: { "subject.clip": mean(0.9), "drift.clip": null },
  notes: ["DINOv2 is left out."],
};

test("scores by row and measure, with the better one", () => {
  const { names, measures, notes } = parseScoreTable(DATA);
  assert.deepEqual(names, DATA.row_names);
  assert.deepEqual(notes, DATA.notes);
  const [subject, drift] = measures;
  assert.deepEqual(subject.rows, DATA.rows["subject.clip"]);
  assert.deepEqual([subject.photographs.mean, drift.photographs], [0.9, null]);
  assert.equal(bestRow(subject), 1);
  assert.equal(bestRow({ ...subject, better: "lower" }), 0);
  assert.equal(bestRow({ ...subject, better: null }), -1);
  assert.equal(bestRow(drift), -1, "one alone is not the best");
});

test("a damaged file of scores shows what is whole", () => {
  for (const data of [null, undefined, 5, [], {}, { ...DATA, version: 2 }, { version: 1 }])
    assert.equal(parseScoreTable(data), null);
  const damaged = parseScoreTable({
    ...DATA,
    measures: [null, 5, {}, { key: "x" }, DATA.measures[0]],
    rows: { "subject.clip": [{ mean: "low" }, { mean: 0.5, low: null, high: "x" }] },
    photographs: null,
    notes: "none",
  });
  assert.deepEqual(damaged.notes, []);
  assert.deepEqual(
    damaged.measures.map((one) => one.label),
    ["x", "subject match"],
  );
  assert.deepEqual(damaged.measures[1].rows, [null, { mean: 0.5, low: null, high: null }]);
  assert.equal(bestRow(damaged.measures[1]), -1);
});

test("a copy has the next name that is free, on a system that ignores case", () => {
  assert.equal(uniqueName("faces", []), "faces");
  assert.equal(uniqueName("faces", ["Faces"]), "faces 2");
  assert.equal(uniqueName("faces 2", ["faces", "faces 2", "FACES 3"]), "faces 4");
  assert.equal(uniqueName("anna2", ["anna2"]), "anna2 2");
});
