// Parts of the viewer around the image.

import { cellOf, thumbnailQuery } from "./comparison.js";
import { h } from "./dom.js";
import { significant } from "./format.js";

const KEYS = [
  ["← →", "another prompt"],
  ["↑ ↓", "another row"],
  ["C", "compare, or one image"],
  ["X", "swap A and B"],
  ["Z", "actual size"],
  ["Esc", "back"],
];

/** Two lists for choosing a cell; `onChoose` is called with its index. */
export function cellPicker(letter, comparison, cell, onChoose) {
  const { rows, columns } = comparison;
  const keys = columns.map((column) => column.key);
  return h(
    "div",
    { class: "lk-end" },
    h("span", { class: "lk-mark" }, letter),
    list(`Model of ${letter}`, rows, cell.row, (row) => onChoose(row * keys.length + cell.column)),
    list(`Prompt of ${letter}`, keys, cell.column, (column) =>
      onChoose(cell.row * keys.length + column),
    ),
  );
}

function list(label, names, chosen, onChoose) {
  const change = (event) => onChoose(event.target.selectedIndex);
  return h(
    "select",
    { class: "lk-select", "aria-label": label, on: { change } },
    names.map((name, n) => h("option", { selected: n === chosen }, name)),
  );
}

/**
 * One button per model for a prompt's images, as [key, make] for `reconcile`.
 * @param chosen Map of index -> its letter, or ""
 * @param getUrl turns a /view query into a URL
 * @param pick (index, event) -> handles a click
 */
export function modelButtons({ comparison, column, chosen, getUrl, pick }) {
  return comparison.rows.map((name, row) => {
    const index = row * comparison.columns.length + column;
    const image = getUrl(thumbnailQuery(comparison, index));
    const letter = chosen.get(index);
    const shown = cellOf(comparison, index).drawn ? image : null;
    const make = () => modelButton(name, shown, letter, (event) => pick(index, event));
    return [JSON.stringify([name, index, image, letter]), make];
  });
}

function modelButton(name, image, letter, click) {
  const pressed = String(letter !== undefined);
  return h(
    "button",
    { type: "button", class: "lk-model", "aria-pressed": pressed, title: name, on: { click } },
    image
      ? h("img", { alt: "", src: image, loading: "lazy" })
      : h("span", { class: "lk-blank" }),
    h("span", {}, name),
    letter && h("span", { class: "lk-mark" }, letter),
  );
}

/** Details and scores of one or two cells, and the list of keys. */
export function details(cells, scores) {
  return [
    cells.length === 1 && facts(cells[0]),
    scores.length
      ? scoreTable(cells, scores)
      : h("p", { class: "lk-muted" }, "No scores yet. Add a Score node to compute them."),
    pairs(KEYS, "lk-keys"),
  ].filter(Boolean);
}

function facts({ prompt, negative, seed, pose }) {
  const known = { Prompt: prompt, "Negative prompt": negative, Seed: seed, Pose: pose };
  return pairs(Object.entries(known).filter(([, value]) => value !== null && value !== ""));
}

function pairs(entries, kind = null) {
  const rows = entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]);
  return h("dl", { class: kind }, rows);
}

function scoreTable(cells, scores) {
  const heads = cells.length === 1 ? ["image", "row mean"] : ["A", "B"];
  const values = (measure) =>
    cells.length === 1
      ? [measure.cells[cells[0].index], measure.rows[cells[0].row]]
      : cells.map((cell) => measure.cells[cell.index]);
  const rows = scores.map((measure) =>
    h(
      "tr",
      { title: measure.meaning },
      h("th", { scope: "row" }, measure.label, h("small", {}, measure.encoder)),
      values(measure).map((value) => h("td", {}, value === null ? "–" : significant(value, 3))),
    ),
  );
  const head = ["Scores", ...heads].map((text) => h("th", { scope: "col" }, text));
  return h(
    "table",
    { class: "lk-scores" },
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows),
  );
}
