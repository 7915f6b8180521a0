import assert from "node:assert/strict";
import { test } from "node:test";

import { bytes, count, duration, pace, plural, significant } from "../../js/lib/format.js";

test("sizes in the unit that is read easily", () => {
  assert.equal(bytes(0), "0 B");
  assert.equal(bytes(1023), "1023 B");
  assert.equal(bytes(5 * 1024 ** 3), "5.0 GB");
  assert.equal(bytes(150 * 1024 ** 2), "150 MB");
  for (const bad of [null, undefined, NaN, -1, "5"]) assert.equal(bytes(bad), "");
});

test("times in seconds, minutes and hours", () => {
  assert.equal(duration(0.4), "0 s");
  assert.equal(duration(59.6), "1 min 00 s");
  assert.equal(duration(185), "3 min 05 s");
  assert.equal(duration(7620), "2 h 07 min");
  for (const bad of [null, NaN, -1, Infinity]) assert.equal(duration(bad), "");
});

test("a pace says the larger of the two numbers", () => {
  assert.equal(pace(0.4), "2.50 steps/s");
  assert.equal(pace(1.5), "1.50 s/step");
  assert.equal(pace(0), "");
});

test("significant digits without a needless exponent", () => {
  assert.equal(significant(0.123456), "0.123");
  assert.equal(significant(12.3456), "12.3");
  assert.equal(significant(1234.5), "1235");
  assert.equal(significant(0), "0");
  assert.equal(significant(0.0001), "1.00e-4");
  assert.equal(significant(NaN), "–");
});

test("counts and nouns", () => {
  assert.equal(count(12345), "12,345");
  assert.equal(plural(1, "image"), "1 image");
  assert.equal(plural(0, "image"), "0 images");
});
