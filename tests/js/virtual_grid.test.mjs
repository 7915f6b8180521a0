import assert from "node:assert/strict";
import { test } from "node:test";

import { nextCell, scrollOffset, visibleRange } from "../../js/lib/virtual_grid.js";

test("of a large grid only what is on the screen is shown", () => {
  assert.deepEqual(visibleRange(0, 500, 100, 2000), [0, 6]);
  assert.deepEqual(visibleRange(1050, 500, 100, 2000), [9, 17]);
  assert.deepEqual(visibleRange(199_900, 500, 100, 2000), [1998, 2000]);
  assert.deepEqual(visibleRange(0, 500, 100, 3), [0, 3]);
  assert.deepEqual(visibleRange(0, 500, 100, 0), [0, 0]);
  assert.deepEqual(visibleRange(9000, 500, 100, 3), [3, 3]);
});

test("arrow keys stay inside of the grid", () => {
  const at = { row: 1, column: 1 };
  const go = (key) => Object.values(nextCell(at, key, 3, 4));
  assert.deepEqual(go("ArrowUp"), [0, 1]);
  assert.deepEqual(go("ArrowRight"), [1, 2]);
  assert.deepEqual(go("PageDown"), [2, 1]);
  assert.deepEqual(go("Home"), [1, 0]);
  assert.deepEqual(go("End"), [1, 3]);
  assert.equal(nextCell(at, "a", 3, 4), null);
  assert.deepEqual(nextCell({ row: 0, column: 0 }, "ArrowUp", 3, 4), { row: 0, column: 0 });
});

test("scrolling goes no further than needed", () => {
  assert.equal(scrollOffset(100, 200, 150, 250), 100);
  assert.equal(scrollOffset(100, 200, 50, 150), 50);
  assert.equal(scrollOffset(100, 200, 250, 350), 150);
});
