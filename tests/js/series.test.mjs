import assert from "node:assert/strict";
import { test } from "node:test";

import { addStep, emptySeries, smooth, smoothingSpan } from "../../js/lib/series.js";

const steps = (series) => series.points.map((point) => point.step);

test("a resumed run goes back to its last checkpoint", () => {
  const series = emptySeries();
  for (let step = 1; step <= 10; step++) addStep(series, { step, loss: step });
  addStep(series, { step: 6, loss: 60 });
  assert.deepEqual(steps(series), [1, 2, 3, 4, 5, 6]);
  assert.equal(series.points.at(-1).loss, 60);
});

test("a million steps take bounded memory and keep their mean", () => {
  const series = emptySeries();
  const all = 1_000_000;
  for (let step = 1; step <= all; step++)
    addStep(series, { step, loss: step, prior: step % 2 ? null : 2, rate: 1 });
  assert.ok(series.points.length <= 2048);
  assert.equal(
    series.points.reduce((sum, point) => sum + point.count, 0),
    all,
  );
  const mean = series.points.reduce((sum, point) => sum + point.loss * point.count, 0) / all;
  assert.ok(Math.abs(mean - (all + 1) / 2) < 1e-3);
  assert.equal(series.points.at(-1).step, all);
  const counts = new Set(series.points.slice(0, -1).map((point) => point.count));
  assert.equal(counts.size, 1, "each point is of as many steps");
  assert.deepEqual(
    steps(series),
    [...steps(series)].sort((a, b) => a - b),
  );
});

test("smoothing has no bias to its beginning", () => {
  assert.deepEqual(
    smooth([3, 3, 3], 10).map((value) => Number(value.toFixed(9))),
    [3, 3, 3],
  );
  assert.equal(smooth([5], 100)[0], 5);
  assert.deepEqual(smooth([1, 2, 3], 1), [1, 2, 3]);
  const noise = Array.from({ length: 2000 }, (_, n) => (n % 2 ? 1 : -1));
  assert.ok(Math.abs(smooth(noise, 50).at(-1)) < 0.03);
});

test("gaps are passed over", () => {
  assert.deepEqual(smooth([null, 2, null, NaN], 5), [null, 2, 2, 2]);
  assert.equal(smoothingSpan(10), 1);
  assert.equal(smoothingSpan(1e6), 100);
});
