// Shows the images of a table one at a time, over the whole window.

import { button, h, loadStyle, setText, setVisible } from "./dom.js";
import { blockShortcuts } from "./shortcuts.js";
import { nextCell } from "./virtual_grid.js";

/**
 * Opens on one image; the arrow keys lead to the others.
 * @param place {row, column} of that image
 * @param rows, columns size of the table
 * @param image ({row, column}) -> {title, text, content}, `content` an element; or null
 * @param tool a control of the shown image: {element, key(event) -> whether it used the key}
 * @param closed called with the last {row, column} after it is closed
 * @returns {refresh(problem)}, which shows the image again, and a problem's text until the next
 */
export function openLightbox({ place, rows, columns, image, tool = null, closed = () => {} }) {
  loadStyle("viewer");
  const title = h("h2", { role: "status" });
  const text = h("span", { class: "lk-muted" });
  const alert = h("p", { class: "lk-problem", role: "alert" });
  const stage = h("div", { class: "lk-light-stage" });
  const dialog = h("dialog", { class: "likeness lk-viewer lk-light", "aria-label": "Image" });

  const go = (target, problem = "") => {
    const found = image(target);
    if (!found) return;
    place = target;
    setText(title, found.title);
    setText(text, found.text);
    setText(alert, problem);
    setVisible(alert, problem !== "");
    stage.replaceChildren(found.content);
  };
  const by = (key) => go(nextCell(place, key, rows, columns, 1) ?? place);
  const several = rows * columns > 1;
  const plain = (label, symbol, click) => button({ label, symbol, kind: "plain", click });
  const buttons = [
    several && plain("Previous", "left", () => by("ArrowLeft")),
    several && plain("Next", "right", () => by("ArrowRight")),
    plain("Close", "close", () => dialog.close()),
  ].filter(Boolean);
  buttons[0].autofocus = true; // not the tool, which Enter would trigger
  const titles = h("div", { class: "lk-titles" }, title, text);
  dialog.append(h("header", { class: "lk-bar" }, titles, tool?.element, buttons), alert, stage);
  dialog.addEventListener("keydown", (event) => {
    if (tool?.key(event)) event.preventDefault();
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
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed(place);
  });
  blockShortcuts(dialog);
  document.body.append(dialog);
  go(place);
  dialog.showModal();
  return { refresh: (problem) => go(place, problem) };
}
