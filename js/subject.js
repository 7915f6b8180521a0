// The photographs in Subject, as they are trained, before anything is queued.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button, discard, h, icon, renew, say, show } from "./lib/dom.js";
import { dropThrough, sendAll } from "./lib/dropped.js";
import { whileInGraph } from "./lib/graph.js";
import { openLightbox } from "./lib/lightbox.js";
import { addPanel, after, widgetOf } from "./lib/node_panel.js";
import { cropped, pair, whole } from "./lib/photo_pictures.js";
import {
  areTooSmall,
  checkWords,
  foldRefused,
  isMaterial,
  marksOf,
  photosOf,
  readPhotos,
  sizesOf,
  summary,
} from "./lib/photos.js";
import { reasonOf } from "./lib/refusal.js";
import { settingOf } from "./lib/wires.js";

const NODE = "Likeness_Subject";
const WIDGETS = [
  "folder", "resolution", "crop", "face_share", "buckets", "captions", "mask", "enlarge",
];
const WORDS = ["token", "prompt"];
const BUNDLED = "miniature (bundled)"; // no folder of the user's
const CHOOSE =
  "Choose a folder of your own photographs: make one in ComfyUI's input folder and press R.\n" +
  "The miniature's drawings are 256 × 256; for them, set the resolution to 256 or less.";
const NONE = "None of these photographs can be used.";
const WAIT = 400; // ms after the last change

class SubjectPanel {
  #asked = 0;
  #timer = null;
  #stale = false; // whether the folder is to be read when the timer ends
  #view = { photos: [], refused: [], notes: [] };
  #whole = false;
  #folder = null; // whose photographs are shown

  constructor(node) {
    this.node = node;
    this.summary = h("span", { class: "lk-count", role: "status" });
    this.toggle = button({
      text: "Whole photographs",
      title: "Show them whole, dark where they are cut off",
      kind: "plain",
      click: () => this.#toggle(),
    });
    this.again = button({
      label: "Read the folder again",
      symbol: "refresh",
      kind: "plain",
      click: () => this.read(),
    });
    this.grid = h("div", { class: "lk-photos", role: "group", "aria-label": "Photographs" });
    // ComfyUI empties its temporary folder when it starts; the next reading fills it again.
    const lost = ({ target }) => discard(target.closest(".lk-photo"));
    this.grid.addEventListener("error", lost, { capture: true });
    this.list = h("ul", { class: "lk-notes" });
    this.body = h(
      "div",
      { class: "lk-scroll", tabindex: "0", dataset: { captureWheel: "true" } },
      this.grid,
      this.list,
    );
    this.message = h("div", { class: "lk-empty" });
    this.element = h(
      "div",
      { class: "lk-subject" },
      h("div", { class: "lk-panel-bar" }, this.summary, this.toggle, this.again),
      this.body,
      this.message,
    );
    this.#say("Choose a folder to see its photographs.");
  }

  /** Reads the folder soon, or only looks at the words; changes in a row do it once. */
  later(stale = true) {
    this.#stale ||= stale;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#stale) this.read();
      else if (this.#view.photos.length) this.#show(this.#view);
    }, WAIT);
  }

  /** Reads no more. */
  stop() {
    clearTimeout(this.#timer);
    this.#asked++;
  }

  async read() {
    clearTimeout(this.#timer);
    this.#stale = false;
    const asked = ++this.#asked;
    const folder = settingOf(this.node, "folder");
    if (folder.wired)
      return this.#say(
        "The folder comes from another node; its photographs are read when it runs.",
      );
    if (!folder.value)
      return this.#say(
        "There is no folder with photographs. Make one in ComfyUI's input folder and press R.",
      );
    if (folder.value !== this.#folder) this.#say("Reading the photographs …");
    say(this.summary, "Reading …");
    const settings = WIDGETS.map((name) => [name, settingOf(this.node, name)]);
    const view = await readPhotos(
      () => this.#ask(settings),
      () => asked === this.#asked,
    );
    if (view === null) return;
    if (view.error) return this.#sayWhy(folder.value, view);
    const wired = settings.filter(([, { wired }]) => wired).map(([name]) => name);
    if (wired.length)
      view.notes.unshift(`By wire: ${wired.join(", ")}. Shown is what the defaults would give.`);
    this.#folder = folder.value;
    this.#show(view);
  }

  /** Notes which captions, or whether the prompt of all others, does not name the subject. */
  #checkWords(photos) {
    const [token, prompt] = WORDS.map((name) => settingOf(this.node, name));
    const unknown = token.wired || prompt.wired;
    return checkWords(photos, unknown ? "" : token.value, unknown ? "" : prompt.value);
  }

  /** Puts files that were dropped on the node into its folder; false where there is none. */
  async take(files) {
    const { value: folder, wired } = settingOf(this.node, "folder");
    const photos = files.filter(isMaterial);
    const others = files.filter((file) => !isMaterial(file)).map((file) => file.name);
    if (!photos.length || !folder || folder === BUNDLED || wired) return false;
    const begun = new Set();
    try {
      await sendAll(photos, (file, ...how) => {
        say(this.summary, `Copying ${begun.add(file).size} of ${photos.length} …`);
        return copied(file, folder, ...how);
      });
    } catch (error) {
      this.#say(error.message);
      return true;
    }
    await this.read();
    if (others.length) say(this.summary, `Neither photograph nor caption: ${others.join(", ")}.`);
    return true;
  }

  async #ask(settings) {
    const query = new URLSearchParams();
    for (const [name, { value, wired }] of settings) {
      if (value !== undefined && !wired)
        query.set(name, name === "folder" ? value : JSON.stringify(value));
    }
    try {
      const answer = await api.fetchApi(`/likeness/photos?${query}`);
      if (!answer.ok) throw new Error(await reasonOf(answer));
      return photosOf(await answer.json());
    } catch (error) {
      return { error: `The photographs cannot be read. ${error.message}` };
    }
  }

  #show(view) {
    this.#view = view;
    const notes = [...this.#checkWords(view.photos), ...view.notes];
    say(this.summary, summary(view));
    renew(
      this.grid,
      view.photos.map((photo) => [JSON.stringify([photo, this.#whole]), () => this.#photo(photo)]),
    );
    const marked = view.photos.flatMap((photo) =>
      marksOf(photo).map((mark) => this.#line(photo.name, mark, "warn")),
    );
    const lines = [...marked, ...this.#refusals(view.refused)];
    this.list.replaceChildren(...lines, ...notes.map((note) => h("li", {}, note)));
    show(this.list, this.list.childElementCount > 0);
    this.#mode(true);
  }

  #refusals(refused) {
    return foldRefused(refused).map(({ title, files, reason }) => {
      const line = this.#line(title, `refused: ${reason}`, "bad");
      line.title = files.join("\n");
      return line;
    });
  }

  /** Why no photograph is shown. */
  #sayWhy(folder, { error, refused }) {
    if (folder === BUNDLED && areTooSmall(refused)) return this.#say(CHOOSE);
    this.#say(refused.length ? NONE : error);
    const list = h("ul", { class: "lk-notes" }, this.#refusals(refused));
    if (refused.length) this.message.append(list);
  }

  #say(text) {
    this.#folder = null;
    this.#view = { photos: [], refused: [], notes: [] };
    say(this.message, text);
    say(this.summary, "Photographs");
    this.#mode(false);
  }

  #mode(full) {
    show(this.body, full);
    show(this.toggle, full);
    show(this.message, !full);
  }

  #line(name, text, kind) {
    return h(
      "li",
      { class: kind },
      icon("warning"),
      h("span", {}, h("strong", {}, name), " ", text),
    );
  }

  #photo(photo) {
    const marks = marksOf(photo);
    const label = [photo.name, ...marks].join(", ");
    const title = [photo.name, sizesOf(photo), ...marks].join("\n");
    const open = () => this.#open(photo.name);
    return h(
      "button",
      { type: "button", class: "lk-photo", "aria-label": label, title, on: { click: open } },
      this.#whole ? whole(photo) : cropped(photo),
      marks.length > 0 && h("span", { class: "lk-flag" }, icon("warning")),
    );
  }

  #toggle() {
    this.#whole = !this.#whole;
    this.toggle.setAttribute("aria-pressed", String(this.#whole));
    this.#show(this.#view);
  }

  #open(name) {
    const { photos } = this.#view;
    openLightbox({
      place: { row: 0, column: photos.findIndex((photo) => photo.name === name) },
      rows: 1,
      columns: photos.length,
      picture: ({ column }) => ({
        title: photos[column].name,
        text: [sizesOf(photos[column]), ...marksOf(photos[column])].join(" · "),
        content: pair(photos[column]),
      }),
    });
  }
}

/** Copies a file into a folder of ComfyUI's input; returns its name there. Throws in words. */
async function copied(file, folder, name, overwrite) {
  const body = new FormData();
  body.append("image", file, name);
  body.append("type", "input");
  body.append("subfolder", folder);
  body.append("overwrite", String(overwrite));
  try {
    const answer = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!answer.ok) throw new Error(await reasonOf(answer));
    return (await answer.json()).name;
  } catch (error) {
    throw new Error(`${file.name} could not be copied. ${error.message}`);
  }
}

const panels = new Set();

app.registerExtension({
  name: "Likeness.Subject",

  setup() {
    // Widgets that are shown on a subgraph node may have been changed there.
    app.canvas.canvas.addEventListener("litegraph:set-graph", ({ detail: { newGraph } }) => {
      for (const panel of panels) if (panel.node.graph === newGraph) panel.later();
    });
    api.addEventListener("reconnected", () => panels.forEach((panel) => panel.later()));
  },

  /** R in the editor. */
  refreshComboInNodes() {
    for (const panel of panels) panel.later();
  },

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new SubjectPanel(node);
    whileInGraph(node, {
      added: () => {
        panels.add(panel);
        panel.later();
      },
      removed: () => {
        panel.stop();
        panels.delete(panel);
      },
    });
    const later = (stale) => panels.has(panel) && panel.later(stale);
    node.onDragOver = (event) =>
      [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
    node.onDragDrop = (event) => panel.take([...(event.dataTransfer?.files ?? [])]);
    const dropped = () => (app.dragOverNode = node);
    dropThrough(panel.element, (event) => node.onDragOver(event), dropped);
    addPanel(node, "likeness_photos", panel.element, { styles: ["subject"], minHeight: 190 });
    for (const name of [...WIDGETS, ...WORDS]) {
      const widget = widgetOf(node, name);
      if (widget) after(widget, "callback", () => later(WIDGETS.includes(name)));
    }
    after(node, "onConfigure", () => later());
    after(node, "onConnectionsChange", () => later());
  },
});
