// Which part of a large grid is on the screen. Nothing here touches the document.

/** Half-open range [first, last) of items of `size` pixels that a scrolled window shows. */
export function visible(offset, length, size, count, extra = 1) {
  const first = Math.max(0, Math.floor(offset / size) - extra);
  const last = Math.min(count, Math.ceil((offset + length) / size) + extra);
  return [Math.min(first, count), Math.max(Math.min(first, count), last)];
}

/** The cell that an arrow key, Home or End leads to, within the grid; null for another key. */
export function moved({ row, column }, key, rows, columns, page = 4) {
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

/** How far to scroll so that [start, end) lies inside a window of `length` at `offset`. */
export function scrolledTo(offset, length, start, end) {
  if (start < offset) return start;
  return end > offset + length ? end - length : offset;
}
