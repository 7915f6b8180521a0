// Previews drawn during training: one column per step, one row per prompt.

import { h, reconcile, setVisible } from "./dom.js";
import { count } from "./format.js";
import { openLightbox } from "./lightbox.js";
import { filmstrip } from "./run_state.js";

/** Has `element` and `update(previews)`; `getUrl` turns a preview's path into a URL. */
export class Filmstrip {
  #shown = "";
  #previews = [];

  constructor(getUrl) {
    this.getUrl = getUrl;
    this.element = h("div", {
      class: "lk-film",
      role: "group",
      "aria-label": "Previews",
      dataset: { captureWheel: "true" },
    });
    setVisible(this.element, false);
  }

  clear() {
    this.update([]);
  }

  update(previews) {
    const known = previews.map((one) => `${one.step}/${one.index}/${one.path}`).join();
    if (known === this.#shown) return;
    this.#shown = known;
    this.#previews = previews;
    const { element } = this;
    const atEnd = element.scrollLeft + element.clientWidth >= element.scrollWidth - 8;
    const { steps, prompts } = filmstrip(previews);
    element.style.gridTemplateColumns = `repeat(${steps.length}, 64px)`;
    const heads = steps.map((step, n) => ({
      key: `step ${step}`,
      make: () => h("div", { class: "lk-step" }, count(step)),
      area: `1 / ${n + 1}`,
    }));
    const frames = previews.map((one) => ({
      key: `${one.step}/${one.index}/${one.path}`,
      make: () => this.#frame(one),
      area: `${prompts.indexOf(one.index) + 2} / ${steps.indexOf(one.step) + 1}`,
    }));
    const all = [...heads, ...frames];
    const children = reconcile(
      element,
      all.map(({ key, make }) => [key, make]),
    );
    children.forEach((child, n) => child.style.setProperty("grid-area", all[n].area));
    setVisible(element, previews.length > 0);
    if (atEnd) element.scrollLeft = element.scrollWidth;
  }

  #frame(preview) {
    const label = `Step ${count(preview.step)}, prompt ${preview.index + 1}`;
    const image = h("img", {
      alt: "",
      src: this.getUrl(preview.path),
      loading: "lazy",
      decoding: "async",
    });
    return h(
      "button",
      {
        type: "button",
        "aria-label": label,
        title: label,
        on: { click: () => this.#open(preview) },
      },
      image,
    );
  }

  #open({ step, index }) {
    const { steps, prompts } = filmstrip(this.#previews);
    openLightbox({
      place: { row: prompts.indexOf(index), column: steps.indexOf(step) },
      rows: prompts.length,
      columns: steps.length,
      image: ({ row, column }) => {
        const preview = this.#previews.find(
          (one) => one.step === steps[column] && one.index === prompts[row],
        );
        const title = `Step ${count(steps[column])}`;
        return (
          preview && {
            title,
            text: prompts.length > 1 ? `prompt ${prompts[row] + 1} of ${prompts.length}` : "",
            content: h("img", {
              class: "lk-light-image",
              alt: title,
              src: this.getUrl(preview.path),
            }),
          }
        );
      },
    });
  }
}
