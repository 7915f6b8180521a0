// Geometry of a virtualised grid: visible items, navigation and scrolling. Does not touch the DOM.

/** Range [first, last) of the `size`-pixel items visible at a scroll offset, plus `extra`. */
export function visibleRange(offset, length, size, count, extra = 1) {
  const first = Math.max(0, Math.floor(offset / size) - extra);
  const last = Math.min(count, Math.ceil((offset + length) / size) + extra);
  return [Math.min(first, count), Math.max(Math.min(first, count), last)];
}

/** The cell that a navigation key leads to, clamped to the grid; null for other keys. */
export function nextCell({ row, column }, key, rows, columns, page = 4) {
  const within = (value, count) => Math.max(0, Math.min(count - 1, value));
  const to = (down, right) => ({
    row: within(row + down, rows),
    column: within(column + right, columns),
  });
  switch (key) {
    case "ArrowUp":
      return to(-1, 0);
    case "ArrowDown":
      return to(1, 0);
    case "ArrowLeft":
      return to(0, -1);
    case "ArrowRight":
      return to(0, 1);
    case "PageUp":
      return to(-page, 0);
    case "PageDown":
      return to(page, 0);
    case "Home":
      return to(0, -columns);
    case "End":
      return to(0, columns);
    default:
      return null;
  }
}

/** Nearest scroll offset at which [start, end) is visible in a viewport of `length` pixels. */
export function scrollOffset(offset, length, start, end) {
  if (start < offset) return start;
  return end > offset + length ? end - length : offset;
}
