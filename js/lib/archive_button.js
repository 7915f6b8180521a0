// A button that downloads all pictures, says how far it is, and stops at a second click.

import { button, say } from "./dom.js";
import { saveArchive } from "./download.js";
import { plural } from "./format.js";

const LABEL = "Download all";

/**
 * @param contents () -> {name, files: [{address, name}]}, of the archive
 * @param failed called with a message
 */
export class ArchiveButton {
  #packing = null;

  constructor(contents, failed) {
    this.contents = contents;
    this.failed = failed;
    this.element = button({ text: LABEL, symbol: "download", click: () => this.#click() });
    this.label = this.element.querySelector("span");
  }

  /** Says how many pictures there are. */
  offer(count) {
    this.element.disabled = count === 0 && this.#packing === null;
  }

  /** Gives up what is on its way. */
  stop() {
    this.#packing?.abort();
  }

  async #click() {
    if (this.#packing) return this.stop();
    this.#packing = new AbortController();
    try {
      await this.#pack(this.#packing.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error.message);
    }
    this.#packing = null;
    say(this.label, LABEL);
  }

  async #pack(signal) {
    const { name, files } = this.contents();
    const told = (done, total) => say(this.label, `${done} of ${total}, stop`);
    const packed = await saveArchive(files, name, { told, signal });
    const gone = files.length - packed;
    if (gone) this.failed(`${plural(gone, "picture")} could not be read.`);
  }
}
