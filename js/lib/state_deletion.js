// Deletes the training state that a finished run keeps, after asking.

import { button, h, setText, setVisible } from "./dom.js";
import { bytes } from "./format.js";
import { openPopup } from "./popup.js";

const LOSS =
  "This training can then not be continued: more steps start at step 0, and continue_from of Train " +
  "Options cannot use it. Its adapters, recipe, losses and previews stay.";

/** The button of a finished run; `remove(run)` deletes its state, or throws an Error to be read. */
export class StateDeletion {
  constructor(remove) {
    this.remove = remove;
    this.element = button({ text: "Delete training state", kind: "plain", click: () => this.ask() });
    this.element.classList.add("lk-delete");
    this.show(0, "");
  }

  /** Offers to delete a run's state of this size in bytes; 0: there is none, or it is needed. */
  show(size, run) {
    [this.size, this.run] = [size, run];
    setText(this.element.querySelector("span"), `Delete training state (${bytes(size)})`);
    setVisible(this.element, size > 0);
  }

  ask() {
    const anchor = this.element;
    const note = h("p", { class: "lk-muted", role: "status" });
    const remove = button({ text: "Delete", kind: "danger", click });
    const keep = button({ text: "Keep", click: () => box.close() });
    const question = h("p", {}, `Delete ${bytes(this.size)}? ${LOSS}`);
    const content = [question, note, h("div", { class: "lk-choices" }, keep, remove)];
    const { left, bottom } = anchor.getBoundingClientRect();
    const place = { x: left, y: bottom + 4, anchor, class: "likeness lk-popup lk-dialog" };
    const box = openPopup(content, { ...place, role: "dialog", "aria-label": "Delete training state" });
    const { run } = this; // the panel may show another when the question is answered
    const act = () => this.remove(run);

    async function click() {
      remove.disabled = true;
      setText(note, "Deleting …");
      try {
        await act();
        box.close();
      } catch (error) {
        setText(note, error.message);
      }
      remove.disabled = false;
    }
  }
}
