// A button that downloads all images as a zip, shows progress and cancels on a second click.

import { button, setText } from "./dom.js";
import { saveArchive } from "./download.js";
import { plural } from "./format.js";

const LABEL = "Download all";

/**
 * @param contents () -> {name, files: [{url, name}]} of the archive
 * @param onError called with a message
 */
export class ArchiveButton {
  #packing = null;

  constructor(contents, onError) {
    this.contents = contents;
    this.onError = onError;
    this.element = button({ text: LABEL, symbol: "download", click: () => this.#click() });
    this.label = this.element.querySelector("span");
  }

  /** Sets how many images there are; with none the button is disabled. */
  setCount(count) {
    this.element.disabled = count === 0 && this.#packing === null;
  }

  /** Aborts the download in progress. */
  stop() {
    this.#packing?.abort();
  }

  async #click() {
    if (this.#packing) return this.stop();
    this.#packing = new AbortController();
    try {
      await this.#pack(this.#packing.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.onError(error.message);
    }
    this.#packing = null;
    setText(this.label, LABEL);
  }

  async #pack(signal) {
    const { name, files } = this.contents();
    const onProgress = (done, total) => setText(this.label, `${done} of ${total} – click to stop`);
    const packed = await saveArchive(files, name, { onProgress, signal });
    const gone = files.length - packed;
    if (gone) this.onError(`${plural(gone, "image")} could not be read.`);
  }
}
