// The context menu of a comparison's cell.

import { cellOf, downloadName, imageQuery } from "./comparison.js";
import { downloadUrl } from "./download.js";
import { openMenu } from "./popup.js";

/** Tooltip of "Redraw". */
export const REDRAW_TITLE =
  "Queues the workflow to generate this image again. The same seed gives the same image: for a " +
  "damaged file, or nodes and files that have changed unnoticed";

/**
 * Opens a cell's menu at the pointer.
 * @param getUrl turns a /view query into a URL
 * @param open, redraw handlers of "Open" and "Redraw"
 */
export function openCellMenu(comparison, index, event, { getUrl, open, redraw }) {
  const { label, key, drawn } = cellOf(comparison, index);
  const download = () =>
    downloadUrl(getUrl(imageQuery(comparison, index)), downloadName(comparison, index));
  const items = [
    { text: "Open", symbol: "expand", click: open },
    { text: "Redraw", symbol: "refresh", title: REDRAW_TITLE, disabled: !drawn, click: redraw },
    { text: "Download", symbol: "download", disabled: !drawn, click: download },
  ];
  const place = { x: event.clientX, y: event.clientY, anchor: event.target };
  openMenu(items, `${label}, ${key}`, place);
}
