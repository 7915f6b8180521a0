// Pictures of a subject's photographs, which the server has written to ComfyUI's temp folder.

import { h } from "./dom.js";
import { cropPlace, isWhole } from "./photos.js";
import { tempAddress } from "./temp_files.js";

/** As it is trained. */
export function cropped({ crop, size }) {
  return h("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    src: tempAddress(crop),
    width: size[0],
    height: size[1],
  });
}

/** The whole photograph, dark outside of the crop. */
export function whole(photo) {
  return h(
    "span",
    { class: "lk-whole", style: { "aspect-ratio": photo.width / photo.height } },
    h("img", { alt: "", loading: "lazy", decoding: "async", src: tempAddress(photo.whole) }),
    isWhole(photo) || h("span", { class: "lk-crop", style: cropPlace(photo) }),
  );
}

/** Whole and as trained, side by side. */
export function pair(photo) {
  const figure = (picture, aspect, text) =>
    h("figure", { style: { "--lk-aspect": aspect } }, picture, h("figcaption", {}, text));
  const [width, height] = photo.size;
  return h(
    "div",
    { class: "lk-photo-pair" },
    figure(whole(photo), photo.width / photo.height, "Whole"),
    figure(
      cropped(photo),
      width / height,
      photo.caption ? `As trained: ${photo.caption}` : "As trained",
    ),
  );
}
