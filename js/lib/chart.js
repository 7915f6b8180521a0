// From numbers to the strings of an SVG path. Nothing here touches the document.

/** A function from [first, last] to [from, to]; the middle if the values do not differ. */
export function scale([first, last], [from, to]) {
  if (first === last) return () => (from + to) / 2;
  return (value) => from + ((value - first) / (last - first)) * (to - from);
}

/** Path through the points whose x and y are finite; a gap in the values is a gap in the line. */
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
 * [lowest, highest] to show: all of the values but the most extreme hundredth on each side, so
 * that one bad step does not flatten the rest. With a margin; null without a finite value.
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

/** About `wanted` round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart. */
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

/** Index of the value nearest to `wanted` in ascending values; -1 of none. */
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
