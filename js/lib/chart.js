// Scales, ticks and SVG path strings for charts. Does not touch the DOM.

/** A linear map from [first, last] to [from, to]; always the midpoint if first equals last. */
export function scale([first, last], [from, to]) {
  if (first === last) return () => (from + to) / 2;
  return (value) => from + ((value - first) / (last - first)) * (to - from);
}

/** SVG path through the points with finite x and y; missing values leave gaps in the line. */
export function linePath(xs, ys, toX, toY) {
  let path = "";
  let pen = "M";
  ys.forEach((value, n) => {
    if (value === null || !Number.isFinite(value) || !Number.isFinite(xs[n])) {
      pen = "M";
      return;
    }
    path += `${pen}${toX(xs[n]).toFixed(1)} ${toY(value).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

/**
 * [low, high] of the values with a margin, leaving out the most extreme hundredth on each side
 * so that one bad step does not flatten the rest. Null if no value is finite.
 */
export function extent(values, share = 0.01) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const cut = Math.floor(sorted.length * share);
  const low = sorted[cut];
  const high = sorted[sorted.length - 1 - cut];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

/** About `wanted` round ticks from `low` to `high`, spaced by 1, 2 or 5 times a power of ten. */
export function ticks(low, high, wanted = 4) {
  if (!(high > low)) return [low];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, n) =>
    Number(((first + n) * step).toPrecision(12)),
  );
}

/** Index of the value nearest to `wanted` in ascending `values`; -1 if there are none. */
export function nearest(values, wanted) {
  let low = 0;
  let high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle;
    else high = middle;
  }
  if (high < 0) return -1;
  return wanted - values[low] <= values[high] - wanted ? low : high;
}
