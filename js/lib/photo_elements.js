// Elements for a subject's photographs, whose images the server wrote to ComfyUI's temp folder.

import { h } from "./dom.js";
import { cropRect, isUncropped } from "./photos.js";
import { tempUrl } from "./temp_files.js";

/** The photograph as it is trained. */
export function cropped({ crop, size }) {
  return h("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    src: tempUrl(crop),
    width: size[0],
    height: size[1],
  });
}

/** The whole photograph, darkened outside the crop. */
export function whole(photo) {
  return h(
    "span",
    { class: "lk-whole", style: { "aspect-ratio": photo.width / photo.height } },
    h("img", { alt: "", loading: "lazy", decoding: "async", src: tempUrl(photo.whole) }),
    isUncropped(photo) || h("span", { class: "lk-crop", style: cropRect(photo) }),
  );
}

/** The whole photograph and the trained crop, side by side; pale if it is left out. */
export function pair(photo, leftOut = false) {
  const figure = (image, aspect, text) =>
    h("figure", { style: { "--lk-aspect": aspect } }, image, h("figcaption", {}, text));
  const [width, height] = photo.size;
  return h(
    "div",
    { class: leftOut ? "lk-photo-pair out" : "lk-photo-pair" },
    figure(whole(photo), photo.width / photo.height, "Whole"),
    figure(
      cropped(photo),
      width / height,
      photo.caption ? `As trained: ${photo.caption}` : "As trained",
    ),
  );
}
