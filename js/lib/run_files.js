// What a run saved: downloads of its adapters, and its training state.

import { button, h, setVisible } from "./dom.js";
import { downloadUrl } from "./download.js";
import { bytes, count } from "./format.js";
import { outputUrl } from "./output_files.js";
import { openMenu } from "./popup.js";
import { StateDeletion } from "./state_deletion.js";

// Of a run without files, or if the server cannot be asked: then the name stays, without a link.
const NOTHING = { files: [], state: 0 };

/**
 * The name of a run's adapter as a link, a menu of the adapters saved on the way, and a button that
 * deletes its training state.
 */
export class RunFiles {
  #known = ""; // the state whose files are shown
  #steps = [];

  /**
   * @param fetchFiles (run) -> {files, state} of its route; null if it fails
   * @param deleteState (run) deletes its training state; throws an Error to be read
   */
  constructor(fetchFiles, deleteState) {
    this.fetchFiles = fetchFiles;
    this.deletion = new StateDeletion(deleteState);
    this.result = h("span", { class: "lk-file" });
    this.menuButton = button({
      text: "Steps …",
      title: "Download an adapter that was saved during training",
      click: () => this.#openMenu(),
    });
    setVisible(this.menuButton, false);
  }

  /** Shows the files of a reader's run; asks the server when it has news of files. */
  async update({ run, isWorking, state: { status, saved, adapters } }) {
    // A training state can be deleted once no process works on the run.
    const key = JSON.stringify([run, isWorking, status, saved, adapters]);
    if (key === this.#known) return;
    this.#known = key;
    this.#show(run, NOTHING, saved);
    if (!saved && !adapters) return;
    const found = (await this.fetchFiles(run)) ?? NOTHING;
    if (key === this.#known) this.#show(run, found, saved);
  }

  /** Has the next update ask the server anew. */
  reset() {
    this.#known = "";
  }

  #show(run, { files, state }, saved) {
    const result = saved && files.find((file) => file.result);
    this.#steps = files.filter((file) => file !== result);
    this.result.replaceChildren(result ? link(result) : fileName(saved ?? ""));
    this.result.title = saved ?? "";
    setVisible(this.menuButton, this.#steps.length > 0);
    this.deletion.show(state, run);
  }

  #openMenu() {
    const items = this.#steps.map((file) => ({
      text: `After step ${count(file.step)} (${bytes(file.size)})`,
      symbol: "download",
      click: () => downloadUrl(urlOf(file), file.filename),
    }));
    const { left, bottom } = this.menuButton.getBoundingClientRect();
    const place = { x: left, y: bottom + 4, anchor: this.menuButton };
    openMenu(items, "Adapters saved during training", place);
  }
}

function link(file) {
  const title = `Download ${file.filename} (${bytes(file.size)})`;
  return h("a", { href: urlOf(file), download: file.filename, title }, file.filename);
}

const urlOf = ({ filename, subfolder }) => outputUrl(filename, subfolder);
const fileName = (path) => path.split(/[/\\]/).at(-1);
