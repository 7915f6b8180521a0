// Photographs and their sidecar files, dropped on a node or picked, and copied to ComfyUI.

import { h } from "./dom.js";

const SIDECAR = /(\.txt|\.caption|-masklabel\.png)$/i;
const UNSAFE = /[\u0000-\u001f\u007f:*?"<>|/\\]+/g; // in a folder's name, on some system

/**
 * Lets files be dropped on a panel as on its node. The panel covers the canvas, the only element
 * on which ComfyUI listens in the classic renderer.
 * @param over the node's `onDragOver`
 * @param dropped called before the drop bubbles up to ComfyUI
 */
export function forwardDrop(element, over, dropped) {
  element.addEventListener("dragover", (event) => {
    if (over(event)) event.preventDefault(); // allows dropping here
  });
  element.addEventListener("drop", (event) => {
    if (over(event)) dropped();
  });
}

/**
 * {files, folder} of a drop: if a folder was dropped, its name and its files, without those of its
 * sub-folders; else "" and the files. Throws an Error if it was more than one folder.
 */
export async function droppedFiles({ items = [], files = [] }) {
  const loose = [...files]; // emptied with `items` once the event is handled
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (!folders.length) return { files: loose, folder: "" };
  if (entries.length > 1) throw new Error("Drop either files or one folder.");
  const inside = (await childrenOf(folders[0])).filter((entry) => entry.isFile);
  const asFile = (entry) => new Promise((done, fail) => entry.file(done, fail));
  return { files: await Promise.all(inside.map(asFile)), folder: folders[0].name };
}

/** All entries of a directory; a reader returns them in parts. */
async function childrenOf(directory) {
  const reader = directory.createReader();
  const all = [];
  for (;;) {
    const part = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!part.length) return all;
    all.push(...part);
  }
}

/**
 * Opens the browser's dialog for files, or for one folder; calls `picked` with {files, folder} as
 * of `droppedFiles`, unless the user cancels.
 */
export function pickFiles({ wholeFolder, picked }) {
  const input = h("input", { type: "file", multiple: true, webkitdirectory: wholeFolder });
  input.addEventListener("change", () => {
    const chosen = [...input.files].map((file) => [file, file.webkitRelativePath.split("/")]);
    const files = chosen.filter(([, path]) => path.length <= 2).map(([file]) => file);
    const folder = wholeFolder ? (chosen[0]?.[1][0] ?? "") : "";
    picked({ files, folder });
  });
  input.click();
}

/** A valid folder name that is like `text`, or "" if nothing is left of it. */
export function folderName(text) {
  return text.replace(UNSAFE, " ").replace(/\s+/g, " ").replace(/^[. ]+|[. ]+$/g, "");
}

/**
 * Uploads photographs, then their captions and masks. ComfyUI renames a photograph whose name is
 * taken; its sidecar files are renamed too, or they would belong to the existing photograph.
 * @param upload (file, name, overwrite) -> the name that the file got
 */
export async function uploadAll(files, upload) {
  const isSidecar = ({ name }) => SIDECAR.test(name);
  const names = new Map(); // photograph's stem -> Set of stems after upload
  for (const photo of files.filter((file) => !isSidecar(file))) {
    const stem = stemOf(photo.name);
    const got = stemOf(await upload(photo, photo.name, false));
    names.set(stem, (names.get(stem) ?? new Set()).add(got));
  }
  for (const file of files.filter(isSidecar)) {
    const [ending] = SIDECAR.exec(file.name);
    const stem = file.name.slice(0, -ending.length);
    for (const got of names.get(stem) ?? [stem]) await upload(file, got + ending, true);
  }
}

const stemOf = (name) => name.replace(/\.[^.]*$/, "");
