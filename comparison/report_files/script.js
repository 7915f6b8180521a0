
// Pictures large: a click opens one, a second shows its own pixels, arrow keys walk the sheet.
"use strict";
const viewer = document.querySelector("dialog");
const pictures = [...document.querySelectorAll(".sheet img")];
let shown = null;

function show(picture) {
  shown = picture;
  viewer.querySelector("img").src = picture.src;
  viewer.querySelector("img").alt = picture.alt;
  viewer.querySelector("figcaption").textContent = picture.dataset.caption;
  viewer.classList.remove("actual");
  if (!viewer.open) viewer.showModal();
}

function neighbour(down, right) {
  let row = Number(shown.dataset.row) + down, column = Number(shown.dataset.column) + right;
  return pictures.find((p) => Number(p.dataset.row) === row && Number(p.dataset.column) === column);
}

const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
for (const picture of pictures) picture.parentElement.addEventListener("click", () => show(picture));
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
