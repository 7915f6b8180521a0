// A comparison as the server writes it (docs/file-formats.md): parsing, validation and URLs.

/** The supported version of `viewer.json`. */
export const VERSION = 1;

const CELLS = "likeness/cells";
const THUMBNAILS = "likeness/cache/thumbnails";
const COMPARISONS = "likeness/comparisons";

const isText = (value) => typeof value === "string";
const isList = (value, length) => Array.isArray(value) && value.length === length;

/** Validates a comparison from decoded JSON. Throws an Error with a readable message. */
export function parseComparison(data, name) {
  if (data?.version > VERSION)
    throw new Error("This comparison was made by a newer version of Likeness.");
  const { rows, columns, images, drawn, width, height } = data ?? {};
  const isValid =
    Array.isArray(rows) &&
    rows.every(isText) &&
    rows.length > 0 &&
    Array.isArray(columns) &&
    columns.every((column) => isText(column?.key)) &&
    columns.length > 0 &&
    isList(images, rows.length * columns.length) &&
    images.every((one) => /^[0-9a-zA-Z_-]+$/.test(one)) &&
    isList(drawn, images.length) &&
    drawn.every(Number.isFinite) &&
    width > 0 &&
    height > 0;
  if (!isValid)
    throw new Error("The comparison's viewer.json is damaged; queue again to write it anew.");
  return {
    name,
    rows,
    columns,
    images,
    drawn: [...drawn],
    poses: isList(data.poses, images.length) ? data.poses : images.map(() => null),
    width,
    height,
    aspect: width / height,
    sheet: isText(data.sheet) ? data.sheet : null,
    remark: isText(data.remark) ? data.remark : "",
    report: false, // whether one exists
  };
}

/** Whether two comparisons have the same cells, whichever of these are drawn. */
export function hasSameCells(a, b) {
  const plan = (comparison) =>
    comparison && JSON.stringify({ ...comparison, drawn: null, sheet: null, report: null });
  return plan(a) === plan(b);
}

/** Records newly drawn cells, {index: time}, in place. Returns the valid indices. */
export function addDrawn(comparison, drawn) {
  const news = Object.entries(drawn ?? {}).filter(
    ([index, time]) =>
      /^\d+$/.test(index) && index < comparison.drawn.length && Number.isFinite(time),
  );
  for (const [index, time] of news) comparison.drawn[index] = time;
  return news.map(([index]) => Number(index));
}

/** A cell's position, names and metadata, by index. */
export function cellOf(comparison, index) {
  const columnCount = comparison.columns.length;
  const row = Math.floor(index / columnCount);
  const column = comparison.columns[index % columnCount];
  return {
    index,
    row,
    column: index % columnCount,
    label: comparison.rows[row],
    key: column.key,
    prompt: isText(column.prompt) ? column.prompt : "",
    negative: isText(column.negative) ? column.negative : "",
    seed: Number.isFinite(column.seed) ? column.seed : null,
    pose: isText(comparison.poses[index]) ? comparison.poses[index] : null,
    drawn: comparison.drawn[index] > 0,
  };
}

/** Number of cells that are drawn. */
export function drawnCount(comparison) {
  return comparison.drawn.filter((time) => time > 0).length;
}

// Queries for ComfyUI's /view

// A redrawn image keeps its filename, so its time is part of the query.

/** Query for the contact sheet. */
export function sheetQuery({ name, sheet, drawn }) {
  const subfolder = `${COMPARISONS}/${name}`;
  return query({ filename: sheet, subfolder, type: "output", t: Math.max(...drawn) });
}

/** Query for a cell's image. */
export function imageQuery(comparison, index) {
  return cellQuery(comparison, index, CELLS, "png");
}

/** Query for a cell's thumbnail. */
export function thumbnailQuery(comparison, index) {
  return cellQuery(comparison, index, THUMBNAILS, "webp");
}

function cellQuery({ images, drawn }, index, subfolder, suffix) {
  return query({
    filename: `${images[index]}.${suffix}`,
    subfolder,
    type: "output",
    t: drawn[index],
  });
}

function query(parts) {
  return `/view?${new URLSearchParams(parts)}`;
}

/** Filename under which a cell's image is downloaded. */
export function downloadName(comparison, index) {
  const { label, key } = cellOf(comparison, index);
  return `${safeFilename(label)}_${safeFilename(key)}.png`;
}

/** Text as a filename, without characters special to Windows or to paths in a ZIP archive. */
export function safeFilename(text) {
  return (
    text
      .replace(/[^\p{L}\p{N}._@ -]+/gu, "-")
      .replace(/^[. ]+|[. ]+$/g, "")
      .slice(0, 100) || "image"
  );
}

// Scores

/**
 * Measures with their values from a comparison's `scores.json`: [{key, label, encoder, meaning,
 * better, cells: [number or null], rows: [number or null]}]. Empty if rows or columns differ.
 */
export function parseScores(data, comparison) {
  const keys = comparison.columns.map((column) => column.key);
  const isMatching =
    data?.version === 1 &&
    JSON.stringify(data.row_names) === JSON.stringify(comparison.rows) &&
    JSON.stringify(data.column_names) === JSON.stringify(keys) &&
    Array.isArray(data.measures);
  if (!isMatching) return [];
  return data.measures
    .filter(
      (measure) =>
        isText(measure?.key) && isList(data.cells?.[measure.key], comparison.images.length),
    )
    .map((measure) => ({
      key: measure.key,
      label: isText(measure.label) ? measure.label : measure.key,
      encoder: isText(measure.encoder) ? measure.encoder : "",
      meaning: isText(measure.meaning) ? measure.meaning : "",
      better: measure.better,
      cells: data.cells[measure.key].map(finiteOrNull),
      rows: comparison.rows.map((_, row) => finiteOrNull(data.rows?.[measure.key]?.[row]?.mean)),
    }));
}

const finiteOrNull = (value) => (Number.isFinite(value) ? value : null);

/**
 * Set with the index of each column's best cell by a measure; empty if the measure has no better
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
