// A run's generated class images: the last ones while they are generated, and all to look through.

import { button, h, reconcile, setText, setVisible } from "./dom.js";
import { count } from "./format.js";
import { openLightbox } from "./lightbox.js";
import { outputUrl } from "./output_files.js";

const STAGE = "class images";
const SHOWN = 5; // in one line
const NOTHING = { files: [], subfolder: "", prompts: [] };

export class ClassImages {
  #run = "";
  #known = ""; // the stage, and the image, whose set has been fetched
  #found = NOTHING;

  /** @param fetchImages (run) -> {files, subfolder, prompts} of its route; null if it fails */
  constructor(fetchImages) {
    this.fetchImages = fetchImages;
    this.film = h("div", { class: "lk-film", role: "group", "aria-label": "Class images" });
    this.film.style.gridTemplateColumns = `repeat(${SHOWN}, minmax(0, 64px))`;
    this.openButton = button({ text: "Class images", kind: "plain", click: () => this.#open(0) });
    this.element = h("div", { class: "lk-class-images" }, this.film, this.openButton);
    setVisible(this.element, false);
  }

  /** Asks the server when a stage begins, and for each image that is generated. */
  async update({ run, state: { stage, status } }) {
    const drawing = status === "running" && stage?.name === STAGE;
    setVisible(this.film, drawing);
    if (run !== this.#run) this.#show(NOTHING);
    this.#run = run;
    const key = JSON.stringify([run, stage?.name, drawing && stage.done]);
    if (key === this.#known || !stage) return;
    this.#known = key;
    const found = await this.fetchImages(run);
    if (key !== this.#known) return;
    if (found) this.#show(found);
    else this.#known = "";
  }

  #show(found) {
    this.#found = found;
    const { files, subfolder } = found;
    setText(this.openButton.querySelector("span"), `Class images (${count(files.length)})`);
    setVisible(this.element, files.length > 0);
    const last = files.slice(-SHOWN);
    reconcile(
      this.film,
      last.map((name) => [`${subfolder}/${name}`, () => this.#frame(name)]),
    );
  }

  #frame(name) {
    const title = titleOf(name);
    const click = () => this.#open(this.#found.files.indexOf(name));
    const image = h("img", { alt: "", src: this.#url(name), decoding: "async" });
    return h("button", { type: "button", "aria-label": title, title, on: { click } }, image);
  }

  #open(column) {
    const { files, prompts } = this.#found;
    openLightbox({
      place: { row: 0, column },
      rows: 1,
      columns: files.length,
      image: ({ column }) => ({
        title: titleOf(files[column]),
        text: prompts[numberOf(files[column]) % prompts.length] ?? "",
        content: h("img", { class: "lk-light-image", alt: "", src: this.#url(files[column]) }),
      }),
    });
  }

  #url(name) {
    return outputUrl(name, this.#found.subfolder);
  }
}

const numberOf = (name) => Number.parseInt(name, 10);
const titleOf = (name) => `Class image ${count(numberOf(name) + 1)}`;
