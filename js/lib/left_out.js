// Photographs that are left out of the training: what moves them, and the list of them.

import { api } from "../../../scripts/api.js";
import { button, h, reconcile, setText, setVisible } from "./dom.js";
import { errorMessage } from "./response_error.js";

const KEYS = ["Delete", "Backspace"]; // Backspace is the only one of a Mac's laptop

/** Whether a key leaves out the photograph that has the focus or is shown. */
export function isLeaveOutKey({ key, ctrlKey, metaKey, altKey, shiftKey }) {
  return KEYS.includes(key) && !ctrlKey && !metaKey && !altKey && !shiftKey;
}

/**
 * What is left out of a subject's folder: moves photographs, and lists those below the others in
 * `element`.
 */
export class LeftOut {
  folder = "";
  #names = [];
  #moved;

  /** @param moved called with the folder, and a photograph's name when it was left out */
  constructor(moved) {
    this.#moved = moved;
    this.status = h("span", { class: "lk-hidden", role: "status" });
    this.problem = h("p", { class: "lk-problem", role: "alert" });
    this.count = h("summary", { tabindex: "0" });
    this.list = h("ul", { dataset: { captureWheel: "true" } });
    this.details = h("details", {}, this.count, this.list);
    const content = [this.status, this.problem, this.details];
    this.element = h("div", { class: "lk-left-out" }, content);
    this.use("");
  }

  /** Sets the `folder`; "" if nothing can be left out. */
  use(folder) {
    if (folder === this.folder && folder) return;
    this.folder = folder;
    this.show([]);
    this.#tell({});
  }

  /** Whether photographs can be left out. */
  get available() {
    return this.folder !== "";
  }

  /** Lists these names. The keyboard focus stays in the list, if it was there. */
  show(names) {
    const rows = [...this.list.children];
    const focused = rows.findIndex((row) => row.contains(document.activeElement));
    this.#names = names;
    setText(this.count, `Left out: ${names.length}`);
    reconcile(
      this.list,
      names.map((name) => [name, () => this.#row(name)]),
    );
    setVisible(this.details, names.length > 0);
    if (focused < 0 || this.list.contains(document.activeElement)) return;
    const row = this.list.children[Math.min(focused, names.length - 1)];
    row?.querySelector("button").focus({ preventScroll: true });
  }

  /** Leaves a photograph out; returns its name among those. Throws a readable Error. */
  async leaveOut(name, folder = this.folder) {
    const there = await this.#move("leave-out", folder, name, "left out");
    if (folder === this.folder) this.show([...this.#names, there].sort());
    this.#moved(folder, name);
    return there;
  }

  /** Puts a photograph back; returns its name in the folder. Throws a readable Error. */
  async putBack(name, folder = this.folder) {
    const there = await this.#move("put-back", folder, name, "put back");
    if (folder === this.folder) this.show(this.#names.filter((one) => one !== name));
    this.#moved(folder);
    return there;
  }

  /** Calls `leaveOut` or `putBack`; shows a problem. */
  async attempt(action) {
    try {
      await action(this);
    } catch (error) {
      this.#tell({ problem: error.message });
    }
  }

  async #move(route, folder, name, done) {
    const query = new URLSearchParams({ folder, name });
    const address = `/likeness/photos/${route}?${query}`;
    try {
      const response = await api.fetchApi(address, { method: "POST" });
      if (!response.ok) throw new Error(await errorMessage(response));
      this.#tell({ done: `${name}: ${done}` });
      return (await response.json()).name;
    } catch (error) {
      this.#moved(folder); // it may have been moved elsewhere
      throw new Error(`${name} could not be ${done}. ${error.message}`);
    }
  }

  /** Says what was done, to screen readers, or shows a problem. */
  #tell({ done = "", problem = "" }) {
    setText(this.status, done);
    setText(this.problem, problem);
    setVisible(this.problem, problem !== "");
  }

  #row(name) {
    const put = button({
      text: "Put back",
      title: "Train on this photograph again",
      kind: "plain",
      click: () => this.attempt(() => this.putBack(name)),
    });
    put.setAttribute("aria-label", `Put back ${name}`);
    return h("li", {}, h("span", { title: name }, name), put);
  }
}

/** A lightbox's control that leaves the shown photograph out, or puts it back. */
export class LeaveOutControl {
  #leftOut;
  #folder; // the panel may show another meanwhile
  #changed;
  #shown = "";
  #out = new Map(); // name as shown -> name among those left out
  #back = new Map(); // name as shown -> name after it was put back
  #busy = false;

  /**
   * @param leftOut of the panel
   * @param changed called with a problem's text, or "", when a photograph was moved
   */
  constructor(leftOut, changed) {
    this.#leftOut = leftOut;
    this.#folder = leftOut.folder;
    this.#changed = changed;
    this.element = button({ text: "Leave out", click: () => this.#run() });
    this.element.setAttribute("aria-keyshortcuts", KEYS.join(" "));
  }

  /** Sets the photograph that is shown; returns whether it was left out here. */
  show(name) {
    const isOut = this.#out.has(name);
    this.#shown = name;
    setText(this.element.lastChild, isOut ? "Put back" : "Leave out");
    this.element.title = isOut
      ? "Train on this photograph again (Delete)"
      : "Do not train on this photograph (Delete)";
    return isOut;
  }

  /** Handles a key; returns whether it did anything. */
  key(event) {
    if (!isLeaveOutKey(event)) return false;
    if (!event.repeat) this.#run();
    return true;
  }

  async #run() {
    if (this.#busy) return;
    this.#busy = true;
    try {
      await this.#toggle(this.#shown);
      this.#changed("");
    } catch (error) {
      this.#changed(error.message);
    } finally {
      this.#busy = false;
    }
  }

  async #toggle(name) {
    const folder = this.#folder;
    if (this.#out.has(name)) {
      this.#back.set(name, await this.#leftOut.putBack(this.#out.get(name), folder));
      this.#out.delete(name);
    } else this.#out.set(name, await this.#leftOut.leaveOut(this.#back.get(name) ?? name, folder));
  }
}
