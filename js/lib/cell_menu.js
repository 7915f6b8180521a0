// What can be done with one cell of a comparison.

import { cellOf, downloadName, pictureQuery } from "./comparison.js";
import { save } from "./download.js";
import { openMenu } from "./popup.js";

/** What "Draw again" does, for its tooltip. */
export const AGAIN =
  "Queues the workflow to draw this picture once more. The same seed gives the same picture: for a " +
  "damaged file, or nodes and files that have changed unnoticed";

/**
 * Opens the menu of a cell where it was clicked.
 * @param address turns a query for /view into an address
 * @param open, again what "Open" and "Draw again" do
 */
export function openCellMenu(comparison, index, event, { address, open, again }) {
  const { label, key, drawn } = cellOf(comparison, index);
  const download = () =>
    save(address(pictureQuery(comparison, index)), downloadName(comparison, index));
  const items = [
    { text: "Open", symbol: "expand", click: open },
    { text: "Draw again", symbol: "refresh", title: AGAIN, disabled: !drawn, click: again },
    { text: "Download", symbol: "download", disabled: !drawn, click: download },
  ];
  const place = { x: event.clientX, y: event.clientY, from: event.target };
  openMenu(items, `${label}, ${key}`, place);
}
