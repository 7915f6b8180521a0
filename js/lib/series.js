// A run's values by step, in bounded memory, and their smoothing.

const LIMIT = 2048;

/** An empty series. A point is {step, count, loss, prior, rate}: means over `count` steps. */
export function emptySeries() {
  return { points: [], stride: 1 };
}

/**
 * Adds a step to `series`, in place, and returns it. Points at or after this step are dropped
 * first, as a resumed run goes back to its last checkpoint.
 */
export function addStep(series, { step, loss, prior = null, rate = null }) {
  while (series.points.length && series.points.at(-1).step >= step) series.points.pop();
  const last = series.points.at(-1);
  const point = { step, count: 1, loss, prior, rate };
  if (last && last.count < series.stride)
    series.points[series.points.length - 1] = merged(last, point);
  else series.points.push(point);
  if (series.points.length > LIMIT) halve(series);
  return series;
}

function merged(a, b) {
  const total = a.count + b.count;
  const mean = (key) =>
    a[key] === null || b[key] === null
      ? (b[key] ?? a[key])
      : (a[key] * a.count + b[key] * b.count) / total;
  return { step: b.step, count: total, loss: mean("loss"), prior: mean("prior"), rate: b.rate };
}

function halve(series) {
  const { points } = series;
  series.points = points.flatMap((point, n) =>
    n % 2 ? [] : [n + 1 < points.length ? merged(point, points[n + 1]) : point],
  );
  series.stride *= 2;
}

/**
 * Exponential moving average with bias correction (as in Adam, arXiv:1412.6980, section 3).
 * `span` is the approximate number of values averaged. Null and non-finite values are skipped
 * and yield the average so far.
 */
export function smooth(values, span) {
  const keep = Math.max(0, 1 - 2 / (span + 1));
  let average = 0;
  let weight = 0;
  return values.map((value) => {
    if (Number.isFinite(value)) {
      average = keep * average + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    return weight ? average / weight : null;
  });
}

/** Smoothing span for `length` points: a twentieth of them, from 1 to 100. */
export function smoothingSpan(length) {
  return Math.max(1, Math.min(100, length / 20));
}
