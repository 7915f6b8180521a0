// Downloads of what a run saved: its adapter, and those saved during training.

import { button, h, setVisible } from "./dom.js";
import { downloadUrl } from "./download.js";
import { bytes, count } from "./format.js";
import { outputUrl } from "./output_files.js";
import { openMenu } from "./popup.js";

/** The name of a run's adapter as a link, and a menu of the adapters saved on the way. */
export class RunFiles {
  #known = ""; // the state whose files are shown
  #steps = [];

  /** @param fetchFiles (run) -> the `files` of its route */
  constructor(fetchFiles) {
    this.fetchFiles = fetchFiles;
    this.result = h("span", { class: "lk-file" });
    this.menuButton = button({
      text: "Steps …",
      title: "Download an adapter that was saved during training",
      click: () => this.#openMenu(),
    });
    setVisible(this.menuButton, false);
  }

  /** Shows the files of a run's state; asks the server when it has news of files. */
  async update(run, { status, saved, adapters }) {
    const key = JSON.stringify([run, status, saved, adapters]);
    if (key === this.#known) return;
    this.#known = key;
    this.#show([], saved);
    if (!saved && !adapters) return;
    const files = await this.fetchFiles(run);
    if (key === this.#known) this.#show(files, saved);
  }

  /** Has the next update ask the server anew. */
  reset() {
    this.#known = "";
  }

  #show(files, saved) {
    const result = saved && files.find((file) => file.result);
    this.#steps = files.filter((file) => file !== result);
    this.result.replaceChildren(result ? link(result) : fileName(saved ?? ""));
    this.result.title = saved ?? "";
    setVisible(this.menuButton, this.#steps.length > 0);
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
