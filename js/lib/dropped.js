// Files that are dropped on a node: photographs, and what lies beside them.

const BESIDE = /(\.txt|-masklabel\.png)$/i;

/**
 * Lets files be dropped on an element as on its node: it lies above the canvas, on which alone
 * ComfyUI listens in the classic renderer.
 * @param over the node's `onDragOver`
 * @param dropped called before ComfyUI, which hears of the drop behind this
 */
export function dropThrough(element, over, dropped) {
  element.addEventListener("dragover", (event) => {
    if (over(event)) event.preventDefault(); // or nothing can be dropped there
  });
  element.addEventListener("drop", (event) => {
    if (over(event)) dropped();
  });
}

/**
 * Sends photographs, and then their captions and masks. ComfyUI gives a photograph another name if
 * there is one of its own: what lies beside it gets that name, too, or it would be the other one's.
 * @param send (file, name, overwrite) -> the name that the file got
 */
export async function sendAll(files, send) {
  const isBeside = ({ name }) => BESIDE.test(name);
  const names = new Map(); // stem of a photograph -> Set of the stems it got
  for (const photo of files.filter((file) => !isBeside(file))) {
    const stem = stemOf(photo.name);
    const got = stemOf(await send(photo, photo.name, false));
    names.set(stem, (names.get(stem) ?? new Set()).add(got));
  }
  for (const file of files.filter(isBeside)) {
    const [ending] = BESIDE.exec(file.name);
    const stem = file.name.slice(0, -ending.length);
    for (const got of names.get(stem) ?? [stem]) await send(file, got + ending, true);
  }
}

const stemOf = (name) => name.replace(/\.[^.]*$/, "");
