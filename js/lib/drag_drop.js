// Files dropped on a node: photographs and their sidecar files.

const SIDECAR = /(\.txt|-masklabel\.png)$/i;

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
