import assert from "node:assert/strict";
import { test } from "node:test";

import { extent, linePath, nearest, scale, ticks } from "../../js/lib/chart.js";

test("a path is broken where a value is missing", () => {
  const same = (value) => value;
  assert.equal(linePath([1, 2, 3, 4], [1, 2, null, 4], same, same), "M1.0 1.0L2.0 2.0M4.0 4.0");
  assert.equal(linePath([], [], same, same), "");
  assert.equal(linePath([1, 2], [NaN, Infinity], same, same), "");
});

test("a scale, also upside down and of one value", () => {
  assert.equal(scale([0, 10], [100, 0])(5), 50);
  assert.equal(scale([3, 3], [0, 10])(3), 5);
});

test("one exploding step does not flatten the rest", () => {
  const losses = Array.from({ length: 200 }, (_, n) => 0.1 + (n % 10) / 100);
  losses[50] = 1000;
  const [low, high] = extent(losses);
  assert.ok(low > 0 && low < 0.1 && high > 0.19 && high < 0.3);
  assert.equal(extent([null, NaN]), null);
  const [first, last] = extent([2]);
  assert.ok(first < 2 && last > 2);
});

test("ticks are round numbers inside of the range", () => {
  assert.deepEqual(ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(ticks(0.031, 0.179, 3), [0.05, 0.1, 0.15]);
  assert.deepEqual(ticks(0, 800, 4), [0, 200, 400, 600, 800]);
  assert.deepEqual(ticks(5, 5), [5]);
});

test("the nearest of ascending values", () => {
  const values = [1, 4, 9];
  assert.deepEqual(
    [0, 2, 3, 8, 100].map((wanted) => nearest(values, wanted)),
    [0, 0, 1, 2, 2],
  );
  assert.equal(nearest([], 1), -1);
  assert.equal(nearest([7], 1), 0);
});
