// A box that makes the zip of a finished run, and downloads it.

import { button, h, say } from "./dom.js";
import { openPopup } from "./popup.js";

const WHAT =
  "One zip with the adapter, its recipe, and the newest comparison that shows it. No photographs, " +
  "and no path of this computer.";
const LEAVE = "Leave all prompts out, and the comparison with them";

/**
 * Opens the box below a button.
 * @param make (prompts) -> makes the zip with or without prompts and downloads it; throws an Error
 *   in words
 */
export function openShareBox(from, make) {
  const bare = h("input", { type: "checkbox" });
  const note = h("p", { class: "lk-muted", role: "status" });
  const start = button({ text: "Make the zip", symbol: "download", kind: "primary", click });
  const content = [h("p", {}, WHAT), h("label", {}, bare, LEAVE), note, start];
  const { left, bottom } = from.getBoundingClientRect();
  const place = { x: left, y: bottom + 4, from, class: "likeness lk-popup lk-share" };
  const box = openPopup(content, { ...place, role: "dialog", "aria-label": "Share" });
  bare.focus();

  async function click() {
    start.disabled = true;
    say(note, "Packing …");
    try {
      await make(!bare.checked);
      box.close();
    } catch (error) {
      say(note, error.message);
    }
    start.disabled = false;
  }
}
