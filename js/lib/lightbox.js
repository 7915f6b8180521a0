// Shows the images of a table one at a time, over the whole window.

import { button, h, loadStyle, setText } from "./dom.js";
import { blockShortcuts } from "./shortcuts.js";
import { nextCell } from "./virtual_grid.js";

/**
 * Opens on one image; the arrow keys lead to the others.
 * @param place {row, column} of that image
 * @param rows, columns size of the table
 * @param image ({row, column}) -> {title, text, content}, `content` an element; or null
 */
export function openLightbox({ place, rows, columns, image }) {
  loadStyle("viewer");
  const title = h("h2", { role: "status" });
  const text = h("span", { class: "lk-muted" });
  const stage = h("div", { class: "lk-light-stage" });
  const dialog = h("dialog", { class: "likeness lk-viewer lk-light", "aria-label": "Image" });

  const go = (target) => {
    const found = image(target);
    if (!found) return;
    place = target;
    setText(title, found.title);
    setText(text, found.text);
    stage.replaceChildren(found.content);
  };
  const by = (key) => go(nextCell(place, key, rows, columns, 1) ?? place);
  const several = rows * columns > 1;
  dialog.append(
    h(
      "header",
      { class: "lk-bar" },
      h("div", { class: "lk-titles" }, title, text),
      several &&
        button({ label: "Previous", symbol: "left", kind: "plain", click: () => by("ArrowLeft") }),
      several &&
        button({ label: "Next", symbol: "right", kind: "plain", click: () => by("ArrowRight") }),
      button({ label: "Close", symbol: "close", kind: "plain", click: () => dialog.close() }),
    ),
    stage,
  );
  dialog.addEventListener("keydown", (event) => {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      !nextCell(place, event.key, rows, columns, 1)
    )
      return;
    event.preventDefault();
    by(event.key);
  });
  dialog.addEventListener("click", (event) => event.target === stage && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  blockShortcuts(dialog);
  document.body.append(dialog);
  go(place);
  dialog.showModal();
}
