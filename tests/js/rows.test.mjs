import assert from "node:assert/strict";
import { test } from "node:test";

import { addRow, hasRow, newestFirst, parseFiles } from "../../js/lib/rows.js";

const FILES = ["anna.safetensors", "people/anna.safetensors"];

test("the files are those of Load Adapter without its first choice, in old and new schemas", () => {
  const listed = ["none (base)", ...FILES];
  for (const adapter of [["COMBO", { options: listed }], [listed, {}]]) {
    const answer = { Likeness_LoadAdapter: { input: { required: { adapter } } } };
    assert.deepEqual(parseFiles(answer), FILES);
  }
  for (const answer of [null, {}, { Likeness_LoadAdapter: {} }])
    assert.throws(() => parseFiles(answer), /does not know adapter of Likeness_LoadAdapter/);
});

test("the newest file comes first and one of unknown age last", () => {
  const lists = {
    loras: [
      { name: "a", modified: 1 },
      { name: "b", modified: 3 },
      { name: "b", modified: 0 },
      { name: "twice", modified: 2 },
    ],
    checkpoints: [
      { name: "c", modified: 2 },
      { name: "twice", modified: 9 },
    ],
  };
  const names = ["a", "b", "c", "checkpoints/twice", "folder", "loras/twice"];
  assert.deepEqual(newestFirst(names, lists), [
    ...["checkpoints/twice", "b", "c", "loras/twice", "a", "folder"],
  ]);
  assert.deepEqual(newestFirst(names, { loras: [], checkpoints: { error: "?" } }), names);
});

test("a file is a row already if a line or a pattern names it at full strength", () => {
  for (const line of [
    FILES[0],
    `r4 = ${FILES[0]}`,
    `r4=${FILES[0]}  `,
    "an*",
    "e = ?nna.*",
    "*a*s",
  ])
    assert.equal(hasRow(`base\n${line}`, FILES[0]), true, line);
  for (const line of [
    `# ${FILES[0]}`,
    `${FILES[0]} @ 0.5`,
    `people/${FILES[0]}`,
    "people/*",
    "ann?.*.*",
    "?",
    "*b*",
  ])
    assert.equal(hasRow(`base\n${line}`, FILES[0]), false, line);
  assert.equal(hasRow("peo*\\*", FILES[1]), true);
  assert.equal(hasRow("*", FILES[1]), false);
  assert.equal(hasRow("b = Base", "base"), true);
  assert.equal(hasRow("", "base"), false);
  assert.equal(hasRow("bas*", "base"), false, "the base is no file");
});

test("names that hold wildcards are themselves", () => {
  assert.equal(hasRow("a*.st", "a*.st"), true);
  assert.equal(hasRow("x = a [v1].st", "a [v1].st"), true);
  assert.equal(hasRow("r = a=b.st", "a=b.st"), true);
  assert.equal(hasRow("a=b.st", "a=b.st"), true);
});

test("many wildcards end on a long name", () => {
  assert.equal(hasRow(`${"*a".repeat(60)}*b`, "a".repeat(250)), false);
});

test("a row is added as a line of its own", () => {
  assert.equal(addRow("", "a"), "a");
  assert.equal(addRow(" \n", "a"), "a");
  assert.equal(addRow("base", "a"), "base\na");
  assert.equal(addRow("base\n# x\n\n", "a"), "base\n# x\na");
});
