// A comparison as the server writes it (docs/file-formats.md): read, checked, and addressed.

/** The version of `viewer.json` that is understood. */
export const VERSION = 1;

const CELLS = "likeness/cells";
const THUMBNAILS = "likeness/cache/thumbnails";
const COMPARISONS = "likeness/comparisons";

const isText = (value) => typeof value === "string";
const isList = (value, length) => Array.isArray(value) && value.length === length;

/** The comparison of parsed JSON. Throws an Error that says what is wrong with it. */
export function comparisonOf(data, name) {
  if (data?.version > VERSION)
    throw new Error("This comparison was drawn by a newer version of Likeness.");
  const { rows, columns, pictures, drawn, width, height } = data ?? {};
  const whole =
    Array.isArray(rows) &&
    rows.every(isText) &&
    rows.length > 0 &&
    Array.isArray(columns) &&
    columns.every((column) => isText(column?.key)) &&
    columns.length > 0 &&
    isList(pictures, rows.length * columns.length) &&
    pictures.every((one) => /^[0-9a-zA-Z_-]+$/.test(one)) &&
    isList(drawn, pictures.length) &&
    drawn.every(Number.isFinite) &&
    width > 0 &&
    height > 0;
  if (!whole)
    throw new Error("The comparison's viewer.json is damaged; queue again to write it anew.");
  return {
    name,
    rows,
    columns,
    pictures,
    drawn: [...drawn],
    poses: isList(data.poses, pictures.length) ? data.poses : pictures.map(() => null),
    width,
    height,
    aspect: width / height,
    sheet: isText(data.sheet) ? data.sheet : null,
    remark: isText(data.remark) ? data.remark : "",
    report: false, // whether there is one
  };
}

/** Whether two have the same cells; they may differ in which of them are drawn. */
export function isSame(a, b) {
  const plan = (comparison) =>
    comparison && JSON.stringify({ ...comparison, drawn: null, sheet: null, report: null });
  return plan(a) === plan(b);
}

/** Notes cells that were drawn since: {index: time}. Returns the indices that there are. */
export function addDrawn(comparison, drawn) {
  const news = Object.entries(drawn ?? {}).filter(
    ([index, time]) =>
      /^\d+$/.test(index) && index < comparison.drawn.length && Number.isFinite(time),
  );
  for (const [index, time] of news) comparison.drawn[index] = time;
  return news.map(([index]) => Number(index));
}

/** A cell's place, names and times, by its index. */
export function cellOf(comparison, index) {
  const across = comparison.columns.length;
  const row = Math.floor(index / across);
  const column = comparison.columns[index % across];
  return {
    index,
    row,
    column: index % across,
    label: comparison.rows[row],
    key: column.key,
    prompt: isText(column.prompt) ? column.prompt : "",
    negative: isText(column.negative) ? column.negative : "",
    seed: Number.isFinite(column.seed) ? column.seed : null,
    pose: isText(comparison.poses[index]) ? comparison.poses[index] : null,
    drawn: comparison.drawn[index] > 0,
  };
}

/** How many cells are drawn. */
export function drawnCount(comparison) {
  return comparison.drawn.filter((time) => time > 0).length;
}

// Addresses, for ComfyUI's /view

// What is drawn again has the same name, so its time is part of the address.

/** Query of the sheet. */
export function sheetQuery({ name, sheet, drawn }) {
  const subfolder = `${COMPARISONS}/${name}`;
  return query({ filename: sheet, subfolder, type: "output", t: Math.max(...drawn) });
}

/** Query of a cell's picture. */
export function pictureQuery(comparison, index) {
  return cellQuery(comparison, index, CELLS, "png");
}

/** Query of a cell's small copy. */
export function thumbnailQuery(comparison, index) {
  return cellQuery(comparison, index, THUMBNAILS, "webp");
}

function cellQuery({ pictures, drawn }, index, subfolder, suffix) {
  return query({
    filename: `${pictures[index]}.${suffix}`,
    subfolder,
    type: "output",
    t: drawn[index],
  });
}

function query(parts) {
  return `/view?${new URLSearchParams(parts)}`;
}

/** The name under which a cell is downloaded. */
export function downloadName(comparison, index) {
  const { label, key } = cellOf(comparison, index);
  return `${safe(label)}_${safe(key)}.png`;
}

/** A name without what Windows or a ZIP archive's folders would read otherwise. */
export function safe(text) {
  return (
    text
      .replace(/[^\p{L}\p{N}._@ -]+/gu, "-")
      .replace(/^[. ]+|[. ]+$/g, "")
      .slice(0, 100) || "picture"
  );
}

// Scores

/**
 * Measures and values of a comparison's `scores.json`: [{key, label, encoder, meaning, better,
 * cells: [number or null], rows: [number or null]}]. None if it is of other rows or columns.
 */
export function scoresOf(data, comparison) {
  const keys = comparison.columns.map((column) => column.key);
  const fits =
    data?.version === 1 &&
    JSON.stringify(data.row_names) === JSON.stringify(comparison.rows) &&
    JSON.stringify(data.column_names) === JSON.stringify(keys) &&
    Array.isArray(data.measures);
  if (!fits) return [];
  return data.measures
    .filter(
      (measure) =>
        isText(measure?.key) && isList(data.cells?.[measure.key], comparison.pictures.length),
    )
    .map((measure) => ({
      key: measure.key,
      label: isText(measure.label) ? measure.label : measure.key,
      encoder: isText(measure.encoder) ? measure.encoder : "",
      meaning: isText(measure.meaning) ? measure.meaning : "",
      better: measure.better,
      cells: data.cells[measure.key].map(finite),
      rows: comparison.rows.map((_, row) => finite(data.rows?.[measure.key]?.[row]?.mean)),
    }));
}

const finite = (value) => (Number.isFinite(value) ? value : null);

/**
 * Index of the best cell of each column by a measure: a Set. Empty for a measure without a better
 * direction.
 */
export function bestOfColumns(measure, columns) {
  const best = new Map();
  const sign = { higher: 1, lower: -1 }[measure.better];
  if (!sign) return new Set();
  measure.cells.forEach((value, index) => {
    const column = index % columns;
    const before = best.get(column);
    if (value !== null && (before === undefined || sign * value > sign * measure.cells[before]))
      best.set(column, index);
  });
  return new Set(best.values());
}
