
// Images large: a click opens one, a second shows its own pixels, arrow keys walk the sheet.
"use strict";
const viewer = document.querySelector("dialog");
const images = [...document.querySelectorAll(".sheet img")];
let shown = null;

function show(image) {
  shown = image;
  viewer.querySelector("img").src = image.src;
  viewer.querySelector("img").alt = image.alt;
  viewer.querySelector("figcaption").textContent = image.dataset.caption;
  viewer.classList.remove("actual");
  if (!viewer.open) viewer.showModal();
}

function neighbour(down, right) {
  let row = Number(shown.dataset.row) + down, column = Number(shown.dataset.column) + right;
  return images.find((p) => Number(p.dataset.row) === row && Number(p.dataset.column) === column);
}

const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
for (const image of images) image.parentElement.addEventListener("click", () => show(image));
viewer.addEventListener("keydown", (event) => {
  const next = steps[event.key] && neighbour(...steps[event.key]);
  if (steps[event.key]) event.preventDefault();
  if (next) show(next);
});
viewer.addEventListener("click", (event) => {
  if (event.target.tagName === "IMG") viewer.classList.toggle("actual");
  else if (event.target === viewer || event.target.className === "close") viewer.close();
});
viewer.addEventListener("close", () => shown && shown.parentElement.focus());
