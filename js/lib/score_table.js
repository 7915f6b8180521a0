// A comparison's scores as a table: one line per row, one column per measure.

import { h } from "./dom.js";

const ARROWS = { higher: " ↑", lower: " ↓" };
const AMONG = "photographs";
const isText = (value) => typeof value === "string";
const list = (value) => (Array.isArray(value) ? value : []);

/**
 * {names, measures, notes} of a decoded `scores.json`; null if it cannot be shown. A measure is
 * {label, encoder, meaning, better, rows, photographs}, where `photographs` and each of `rows` is
 * {mean, low, high} or null.
 */
export function parseScoreTable(data) {
  if (data?.version !== 1 || !Array.isArray(data.row_names)) return null;
  const names = data.row_names.filter(isText);
  const measures = list(data.measures)
    .filter((one) => isText(one?.key))
    .map((one) => ({
      label: isText(one.label) ? one.label : one.key,
      encoder: isText(one.encoder) ? one.encoder : "",
      meaning: isText(one.meaning) ? one.meaning : "",
      better: one.better,
      rows: names.map((_, row) => parseEstimate(data.rows?.[one.key]?.[row])),
      photographs: parseEstimate(data.photographs?.[one.key]),
    }));
  return { names, measures, notes: list(data.notes).filter(isText) };
}

function parseEstimate(data) {
  if (!Number.isFinite(data?.mean)) return null;
  const [low, high] = [data.low, data.high].map((end) => (Number.isFinite(end) ? end : null));
  return { mean: data.mean, low, high };
}

/** Index of a measure's best row; -1 without a better direction or with fewer than two values. */
export function bestRow({ better, rows }) {
  const sign = { higher: 1, lower: -1 }[better];
  const known = rows.filter(Boolean);
  if (!sign || known.length < 2) return -1;
  const best = Math.max(...known.map(({ mean }) => sign * mean));
  return rows.findIndex((one) => one && sign * one.mean === best);
}

/** The table element. */
export function scoreTable({ names, measures }) {
  const best = measures.map(bestRow);
  const lines = names.map((name, row) =>
    line(
      name,
      measures.map((measure, n) => [measure.rows[row], best[n] === row]),
    ),
  );
  const photographs = measures.map((measure) => [measure.photographs, false]);
  if (measures.some((measure) => measure.photographs)) lines.push(line(AMONG, photographs));
  return h(
    "table",
    { class: "lk-score-table" },
    h("thead", {}, h("tr", {}, h("td"), measures.map(head))),
    h("tbody", {}, lines),
  );
}

function head({ label, encoder, meaning, better }) {
  const title = [encoder, meaning, better && `${better} is better`].filter(Boolean).join("\n");
  return h(
    "th",
    { scope: "col", title },
    `${label}${ARROWS[better] ?? ""}`,
    h("small", {}, encoder),
  );
}

function line(name, values) {
  const cells = values.map(([value, best]) =>
    h(
      "td",
      { class: best ? "best" : null, title: best ? "best of its column" : null },
      value ? decimals(value.mean) : "–",
      value && value.low !== null && value.high !== null && h("small", {}, interval(value)),
    ),
  );
  return h("tr", {}, h("th", { scope: "row", title: name }, name), cells);
}

const interval = ({ low, high }) => `${decimals(low)} to ${decimals(high)}`;
const decimals = (value) => (Math.round(1000 * value) / 1000 + 0).toFixed(3); // no "-0.000"
