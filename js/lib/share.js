// A popup that packs a finished run as a zip and downloads it.

import { button, h, setText } from "./dom.js";
import { openPopup } from "./popup.js";

const DESCRIPTION =
  "One zip with the adapter, its recipe, and the newest comparison that shows it. No photographs, " +
  "and no local paths.";
const OMIT_PROMPTS = "Leave out all prompts and the comparison";

/**
 * Opens the popup below a button.
 * @param make (prompts) -> packs the zip, with or without prompts, and downloads it; throws an
 *   Error with a readable message
 */
export function openShareBox(anchor, make) {
  const omitPrompts = h("input", { type: "checkbox" });
  const note = h("p", { class: "lk-muted", role: "status" });
  const start = button({ text: "Create zip", symbol: "download", kind: "primary", click });
  const content = [h("p", {}, DESCRIPTION), h("label", {}, omitPrompts, OMIT_PROMPTS), note, start];
  const { left, bottom } = anchor.getBoundingClientRect();
  const place = { x: left, y: bottom + 4, anchor, class: "likeness lk-popup lk-dialog" };
  const box = openPopup(content, { ...place, role: "dialog", "aria-label": "Share" });
  omitPrompts.focus();

  async function click() {
    start.disabled = true;
    setText(note, "Packing …");
    try {
      await make(!omitPrompts.checked);
      box.close();
    } catch (error) {
      setText(note, error.message);
    }
    start.disabled = false;
  }
}
