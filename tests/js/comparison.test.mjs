import assert from "node:assert/strict";
import { test } from "node:test";

import {
  addDrawn,
  bestOfColumns,
  cellOf,
  downloadName,
  drawnCount,
  hasSameCells,
  parseComparison,
  parseScores,
  imageQuery,
  safeFilename,
  sheetQuery,
  thumbnailQuery,
} from "../../js/lib/comparison.js";
import { uniqueFilename } from "../../js/lib/download.js";

const DATA = {
  version: 1,
  rows: ["base", "<b>r4</b>"],
  columns: [
    { key: "beach", prompt: "on the beach", negative: "", seed: 7 },
    { key: "rain", prompt: "in the rain", negative: "", seed: 7 },
  ],
  width: 768,
  height: 1024,
  images: ["a0", "a1", "a2", "a3"],
  drawn: [5, 0, 6, 0],
  poses: [null, null, "tree", "lotus"],
  sheet: "sheet-1.png",
};

test("cells by row and column", () => {
  const comparison = parseComparison(DATA, "x");
  assert.equal(comparison.aspect, 0.75);
  assert.equal(drawnCount(comparison), 2);
  const cell = cellOf(comparison, 2);
  assert.deepEqual(
    [cell.row, cell.column, cell.label, cell.key, cell.prompt, cell.seed, cell.pose, cell.drawn],
    [1, 0, "<b>r4</b>", "beach", "on the beach", 7, "tree", true],
  );
});

test("a damaged or newer file is an error in words", () => {
  for (const change of [
    { rows: [] },
    { rows: "base" },
    { rows: [1, 2] },
    { columns: [{}, {}] },
    { images: ["a"] },
    { drawn: [1, 2, 3, "4"] },
    { images: ["a0", "../../x", "a2", "a3"] },
    { width: 0 },
    { drawn: null },
  ]) {
    assert.throws(() => parseComparison({ ...DATA, ...change }, "x"), /damaged/);
  }
  for (const data of [null, undefined, 5, []])
    assert.throws(() => parseComparison(data, "x"), /damaged/);
  assert.throws(() => parseComparison({ ...DATA, version: 2 }, "x"), /newer version/);
});

test("cells that are drawn later", () => {
  const comparison = parseComparison(DATA, "x");
  assert.deepEqual(addDrawn(comparison, { 1: 9, 99: 9, "-1": 9, x: 9, 3: "soon" }), [1]);
  assert.deepEqual(comparison.drawn, [5, 9, 6, 0]);
  assert.deepEqual(DATA.drawn, [5, 0, 6, 0]);
});

test("a comparison that goes on is the same", () => {
  const before = parseComparison(DATA, "x");
  assert.equal(
    hasSameCells(before, parseComparison({ ...DATA, drawn: [5, 9, 6, 9], sheet: null }, "x")),
    true,
  );
  assert.equal(hasSameCells(before, parseComparison(DATA, "y")), false);
  assert.equal(
    hasSameCells(before, parseComparison({ ...DATA, rows: ["base", "r8"] }, "x")),
    false,
  );
  assert.equal(hasSameCells(before, null), false);
});

test("a cell drawn again has another address", () => {
  const comparison = parseComparison(DATA, "x");
  const before = imageQuery(comparison, 0);
  assert.equal(before, "/view?filename=a0.png&subfolder=likeness%2Fcells&type=output&t=5");
  addDrawn(comparison, { 0: 8 });
  assert.notEqual(imageQuery(comparison, 0), before);
  assert.match(thumbnailQuery(comparison, 0), /a0\.webp&subfolder=likeness%2Fcache%2Fthumbnails/);
});

test("a sheet that is drawn again is not the former one from the browser's cache", () => {
  const comparison = parseComparison(DATA, "x");
  const before = sheetQuery(comparison);
  const folder = "subfolder=likeness%2Fcomparisons%2Fx";
  assert.equal(before, `/view?filename=sheet-1.png&${folder}&type=output&t=6`);
  addDrawn(comparison, { 1: 9 });
  assert.notEqual(sheetQuery(comparison), before);
});

test("names of downloads are names on every system", () => {
  assert.equal(downloadName(parseComparison(DATA, "x"), 2), "-b-r4-b-_beach.png");
  assert.equal(safeFilename("../a\\b:c"), "-a-b-c");
  assert.equal(safeFilename("Zoë 日本 @2"), "Zoë 日本 @2");
  assert.equal(safeFilename("..."), "image");
  const taken = new Set();
  assert.deepEqual(
    ["a.png", "A.png", "a.png", "b"].map((name) => uniqueFilename(name, taken)),
    ["a.png", "A-2.png", "a-3.png", "b"],
  );
});

const SCORES = {
  version: 1,
  row_names: DATA.rows,
  column_names: ["beach", "rain"],
  measures: [
    { key: "subject.clip", encoder: "CLIP", label: "subject match", meaning: "", better: "higher" },
    { key: "gone", encoder: "", label: "no values", meaning: "", better: null },
  ],
  cells: { "subject.clip": [0.1, null, 0.3, 0.2] },
  rows: { "subject.clip": [{ mean: 0.1 }, null] },
};

test("scores of the same rows and columns", () => {
  const [measure, ...others] = parseScores(SCORES, parseComparison(DATA, "x"));
  assert.equal(others.length, 0);
  assert.deepEqual(measure.cells, [0.1, null, 0.3, 0.2]);
  assert.deepEqual(measure.rows, [0.1, null]);
  assert.deepEqual([...bestOfColumns(measure, 2)].sort(), [2, 3]);
  assert.deepEqual([...bestOfColumns({ ...measure, better: "lower" }, 2)].sort(), [0, 3]);
  assert.equal(bestOfColumns({ ...measure, better: null }, 2).size, 0);
});

test("scores of another comparison of that name are left out", () => {
  const comparison = parseComparison(DATA, "x");
  for (const change of [
    { row_names: ["base"] },
    { column_names: ["rain", "beach"] },
    { version: 2 },
    { measures: null },
  ]) {
    assert.deepEqual(parseScores({ ...SCORES, ...change }, comparison), []);
  }
  assert.deepEqual(parseScores(null, comparison), []);
});
