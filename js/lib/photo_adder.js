// Adds photographs from the user's computer to the folder of a Subject node.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { button } from "./dom.js";
import { parseOptions } from "./input_options.js";
import { resolveInput, setInput } from "./links.js";
import { droppedFiles, folderName, pickFiles, uploadAll } from "./photo_upload.js";
import { describeOthers, isPhotoOrCaption } from "./photos.js";
import { openMenu } from "./popup.js";
import { errorMessage } from "./response_error.js";
import { asUndoStep } from "./undo.js";

const NODE = "Likeness_Subject";

/** What the user hears of it: `status` is a line beside the photographs, `message` replaces them. */
export class PhotoAdder {
  #node;
  #bundled;
  #on;

  /**
   * @param bundled the value of `folder` that is not one of the user's folders
   * @param on {status, message, added}: functions of a text, and one called when all are there
   */
  constructor(node, bundled, on) {
    this.#node = node;
    this.#bundled = bundled;
    this.#on = on;
    this.button = button({
      text: "Add",
      symbol: "upload",
      title: "Copy photographs from this computer to ComfyUI",
      kind: "plain",
      click: ({ currentTarget }) => this.#openMenu(currentTarget),
    });
  }

  #openMenu(anchor) {
    const { left, bottom } = anchor.getBoundingClientRect();
    const pick = (wholeFolder) => () =>
      pickFiles({ wholeFolder, picked: (chosen) => this.#addPicked(chosen) });
    const items = [
      { text: "Photographs …", click: pick(false) },
      { text: "A folder …", click: pick(true) },
    ];
    openMenu(items, "Add photographs", { x: left, y: bottom + 4, anchor });
  }

  /** Adds what was dropped; returns whether the node can take it. */
  drop(dataTransfer) {
    return this.#attempt(droppedFiles(dataTransfer));
  }

  async #addPicked(chosen) {
    const { files } = chosen;
    if (files.length && !(await this.#attempt(chosen)))
      this.#on.status(describeOthers(files.map(({ name }) => name)));
  }

  /** As `#add`, with a promise of the files; shows a problem. */
  async #attempt(chosen) {
    try {
      return await this.#add(await chosen);
    } catch (error) {
      this.#on.message(error.message);
      return true;
    }
  }

  /**
   * Copies photographs, captions and masks to the node's folder, or to a new one if `dropped`
   * names one or the node has none of the user's. Returns whether the node can take the files.
   */
  async #add({ files, folder: dropped }) {
    const photos = files.filter(isPhotoOrCaption);
    const { value: current, connected } = resolveInput(this.#node, "folder");
    if (connected || !(photos.length || dropped)) return false;
    if (!photos.length) {
      this.#on.message(`The folder ${dropped} has no photographs; its sub-folders are not read.`);
      return true;
    }
    const folders = await listFolders();
    const isOwn = current !== this.#bundled && folders.includes(current);
    const folder = isOwn && !dropped ? current : await nameFolder(dropped, folders);
    if (!folder || !(await this.#upload(photos, folder))) return true;
    if (folder !== current) asUndoStep(() => setInput(this.#node, "folder", folder));
    if (!folders.includes(folder)) await app.refreshComboInNodes(); // lists it in all nodes
    await this.#on.added();
    const others = files.filter((file) => !photos.includes(file)).map(({ name }) => name);
    if (others.length) this.#on.status(describeOthers(others));
    return true;
  }

  /** Whether all were copied. */
  async #upload(photos, folder) {
    const begun = new Set();
    try {
      await uploadAll(photos, (file, ...how) => {
        this.#on.status(`Copying ${begun.add(file).size} of ${photos.length} …`);
        return uploadFile(file, folder, ...how);
      });
      return true;
    } catch (error) {
      this.#on.message(error.message);
      return false;
    }
  }
}

/** The folders of photographs in ComfyUI's input folder as they are now. Throws a readable Error. */
async function listFolders() {
  const response = await api.fetchApi(`/object_info/${NODE}`);
  if (!response.ok) throw new Error(await errorMessage(response));
  return parseOptions(await response.json(), NODE, "folder");
}

/**
 * The name of the folder for the photographs: `dropped`, or what the user enters if that is empty
 * or taken. A name that is taken must be entered a second time. "" if the user cancels.
 */
async function nameFolder(dropped, folders) {
  const taken = new Set(folders.map((one) => one.toLowerCase())); // on some systems they are one
  let name = folderName(dropped);
  for (let isKept = false; !name || (taken.has(name.toLowerCase()) && !isKept);) {
    const given = await app.extensionManager.dialog.prompt({
      title: "Folder for the photographs",
      message: name
        ? `There is a folder ${name}. Keep its name to add the photographs to it.`
        : "Its name inside ComfyUI's input folder",
      defaultValue: name || "subject",
    });
    const entered = folderName(given ?? "");
    if (!entered) return "";
    isKept = entered === name;
    name = entered;
  }
  return name;
}

/** Uploads a file to a ComfyUI input folder; returns its name there. Throws a readable Error. */
async function uploadFile(file, folder, name, overwrite) {
  const body = new FormData();
  body.append("image", file, name);
  body.append("type", "input");
  body.append("subfolder", folder);
  body.append("overwrite", String(overwrite));
  try {
    const response = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!response.ok) throw new Error(await errorMessage(response));
    return (await response.json()).name;
  } catch (error) {
    throw new Error(`${file.name} could not be copied. ${error.message}`);
  }
}
