// One image as large as the space allows, or two with a draggable divider.

import { h } from "./dom.js";

const STEP = 2; // percent, for the arrow keys

/** Has `element`, `single(image)` and `pair(a, b)`; an image is {url, thumbnail, name}. */
export class ImageStage {
  #at = 50;

  constructor() {
    this.frame = h("div", { class: "lk-frame" });
    this.divider = h("div", {
      class: "lk-divider",
      role: "slider",
      tabindex: "0",
      "aria-label": "Divider between the two images",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      on: { keydown: (event) => this.#key(event) },
    });
    const attributes = {
      class: "lk-stage",
      role: "group",
      "aria-label": "Image",
      tabindex: "-1",
    };
    this.element = h("div", attributes, this.frame);
    this.element.addEventListener("pointerdown", (event) => this.#drag(event));
    this.element.addEventListener("pointermove", (event) => this.#drag(event));
  }

  /** Sets the images' size in pixels. */
  size(width, height) {
    this.frame.style.setProperty("--lk-natural", `${width}px`);
    this.frame.style.setProperty("--lk-aspect", width / height);
  }

  /** Whether at actual size, where the arrow keys scroll while the stage has the focus. */
  get actual() {
    return this.element.classList.contains("actual");
  }

  /** Toggles between fitting the space and actual size. */
  toggleActual() {
    this.element.tabIndex = this.element.classList.toggle("actual") ? 0 : -1;
  }

  single(image) {
    this.element.classList.remove("pair");
    this.frame.replaceChildren(layer(image, "only"));
  }

  pair(a, b) {
    const focused = document.activeElement === this.divider;
    this.element.classList.add("pair");
    this.frame.replaceChildren(layer(b, "below"), layer(a, "above"), this.divider);
    this.#move(this.#at);
    if (focused) this.divider.focus({ preventScroll: true });
  }

  #drag(event) {
    if (!this.element.classList.contains("pair") || !(event.buttons & 1)) return;
    const box = this.frame.getBoundingClientRect();
    if (event.type === "pointerdown") this.element.setPointerCapture(event.pointerId);
    event.preventDefault();
    this.#move(((event.clientX - box.left) / box.width) * 100);
  }

  #key(event) {
    const target = { ArrowLeft: this.#at - STEP, ArrowRight: this.#at + STEP, Home: 0, End: 100 }[
      event.key
    ];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#move(target);
  }

  #move(percent) {
    this.#at = Math.max(0, Math.min(100, percent));
    this.frame.style.setProperty("--lk-at", `${this.#at}%`);
    this.divider.setAttribute("aria-valuenow", Math.round(this.#at));
  }
}

/** An image, with its thumbnail as background until it has loaded. */
function layer({ url, thumbnail, name }, place) {
  if (!url)
    return h(
      "div",
      { class: `lk-layer ${place} missing` },
      h("p", {}, "This image is not generated yet."),
    );
  const image = h("img", { alt: name, src: url, decoding: "async", draggable: "false" });
  const element = h(
    "div",
    { class: `lk-layer ${place}`, style: { "background-image": `url("${thumbnail}")` } },
    image,
  );
  image.addEventListener("load", () => element.style.removeProperty("background-image"));
  image.addEventListener("error", () => {
    element.style.removeProperty("background-image");
    element.classList.add("missing");
    element.replaceChildren(h("p", {}, "The image file is missing. Queue again to generate it."));
  });
  return element;
}
