// Shows Subject's photographs as they will be trained, before anything is queued.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button, h, icon, invalidate, reconcile, setText, setVisible } from "./lib/dom.js";
import { trackNode } from "./lib/graph.js";
import { isLeaveOutKey, LeaveOutControl, LeftOut } from "./lib/left_out.js";
import { openLightbox } from "./lib/lightbox.js";
import { resolveInput } from "./lib/links.js";
import { addPanel, chainCallback, widgetOf } from "./lib/node_panel.js";
import { cropped, pair, whole } from "./lib/photo_elements.js";
import { PhotoAdder } from "./lib/photo_adder.js";
import { forwardDrop } from "./lib/photo_upload.js";
import {
  areTooSmall,
  checkToken,
  describeSizes,
  groupRefused,
  isFolderMissing,
  parsePhotos,
  pollPhotos,
  summary,
  warningsOf,
} from "./lib/photos.js";
import { errorMessage } from "./lib/response_error.js";

const NODE = "Likeness_Subject";
// prettier-ignore
const WIDGETS = [
  "folder", "resolution", "crop", "face_share", "buckets", "captions", "mask", "enlarge",
];
const TEXT_WIDGETS = ["token", "prompt"];
const BUNDLED = "miniature (bundled)"; // not one of the user's folders
const ADD = "Drop your photographs here, or a folder of them, or click Add.";
const CHOOSE =
  `${ADD}\nThe miniature's drawings are 256 × 256; ` +
  "for them, set the resolution to 256 or less.";
const NONE = "None of these photographs can be used.";
const WAIT = 400; // ms after the last change

class SubjectPanel {
  #requestId = 0;
  #timer = null;
  #stale = false; // whether to read the folder when the timer fires
  #view = { photos: [], refused: [], notes: [] };
  #whole = false;
  #folder = null; // the one whose photographs are shown

  constructor(node) {
    this.node = node;
    this.summary = h("span", { class: "lk-count", role: "status" });
    this.toggleButton = button({
      text: "Uncropped",
      title: "Show whole photographs with the cropped-off area darkened",
      kind: "plain",
      click: () => this.#toggle(),
    });
    this.adder = new PhotoAdder(node, BUNDLED, {
      status: (text) => setText(this.summary, text),
      message: (text) => this.#showMessage(text),
      added: () => this.read(),
    });
    this.reloadButton = button({
      label: "Read the folder again",
      symbol: "refresh",
      kind: "plain",
      click: () => this.read(),
    });
    this.grid = h("div", { class: "lk-photos", role: "group", "aria-label": "Photographs" });
    // ComfyUI empties its temp folder on startup; the next read fills it again.
    const lost = ({ target }) => invalidate(target.closest(".lk-photo"));
    this.grid.addEventListener("error", lost, { capture: true });
    this.grid.addEventListener("keydown", (event) => this.#onKey(event));
    this.leftOut = new LeftOut((folder, name) => this.#onMoved(folder, name));
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
      h(
        "div",
        { class: "lk-panel-bar" },
        this.summary,
        this.toggleButton,
        this.adder.button,
        this.reloadButton,
      ),
      this.body,
      this.message,
      this.leftOut.element,
    );
    this.#showMessage("Choose a folder to see its photographs.");
  }

  /** Debounced: reads the folder, or just checks the token again if it is not `stale`. */
  scheduleRead(stale = true) {
    this.#stale ||= stale;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#stale) this.read();
      else if (this.#view.photos.length) this.#show(this.#view);
    }, WAIT);
  }

  /** Stops reading. */
  stop() {
    clearTimeout(this.#timer);
    this.#requestId++;
  }

  async read() {
    clearTimeout(this.#timer);
    this.#stale = false;
    const requestId = ++this.#requestId;
    const folder = resolveInput(this.node, "folder");
    setVisible(this.adder.button, !folder.connected);
    const isOwn = !folder.connected && folder.value && folder.value !== BUNDLED;
    this.leftOut.use(isOwn ? folder.value : "");
    if (folder.connected)
      return this.#showMessage(
        "The folder comes from another node; its photographs are read when it runs.",
      );
    if (!folder.value) return this.#showMessage(ADD);
    if (folder.value !== this.#folder) this.#showMessage("Reading the photographs …");
    setText(this.summary, "Reading …");
    const settings = WIDGETS.map((name) => [name, resolveInput(this.node, name)]);
    const view = await pollPhotos(
      () => this.#fetchPhotos(settings),
      () => requestId === this.#requestId,
    );
    if (view === null) return;
    this.leftOut.show(view.leftOut);
    if (view.error) return this.#showError(folder.value, view);
    const connected = settings.filter(([, { connected }]) => connected).map(([name]) => name);
    if (connected.length)
      view.notes.unshift(`Connected: ${connected.join(", ")}. The defaults are shown for these.`);
    this.#folder = folder.value;
    this.#show(view);
  }

  /** Marks captions that lack the token; returns a note if the prompt lacks it. */
  #checkToken(photos) {
    const [token, prompt] = TEXT_WIDGETS.map((name) => resolveInput(this.node, name));
    const unknown = token.connected || prompt.connected;
    return checkToken(photos, unknown ? "" : token.value, unknown ? "" : prompt.value);
  }

  async #fetchPhotos(settings) {
    const query = new URLSearchParams();
    for (const [name, { value, connected }] of settings) {
      if (value !== undefined && !connected)
        query.set(name, name === "folder" ? value : JSON.stringify(value));
    }
    try {
      const response = await api.fetchApi(`/likeness/photos?${query}`);
      if (!response.ok) throw new Error(await errorMessage(response));
      return parsePhotos(await response.json());
    } catch (error) {
      return parsePhotos({ error: `The photographs cannot be read. ${error.message}` });
    }
  }

  #show(view) {
    this.#view = view;
    const notes = [...this.#checkToken(view.photos), ...view.notes];
    setText(this.summary, summary(view));
    const focused = [...this.grid.children].indexOf(document.activeElement);
    reconcile(
      this.grid,
      view.photos.map((photo) => [JSON.stringify([photo, this.#whole]), () => this.#photo(photo)]),
    );
    if (focused >= 0 && !this.grid.contains(document.activeElement)) this.#focus(focused);
    const marked = view.photos.flatMap((photo) =>
      warningsOf(photo).map((mark) => this.#line(photo.name, mark, "warn")),
    );
    const lines = [...marked, ...this.#refusals(view.refused)];
    this.list.replaceChildren(...lines, ...notes.map((note) => h("li", {}, note)));
    setVisible(this.list, this.list.childElementCount > 0);
    this.#showBody(true);
  }

  #refusals(refused) {
    return groupRefused(refused).map(({ title, files, reason }) => {
      const line = this.#line(title, `skipped: ${reason}`, "bad");
      line.title = files.join("\n");
      return line;
    });
  }

  /** Shows why there are no photographs. */
  #showError(folder, { error, refused }) {
    if (folder === BUNDLED && areTooSmall(refused)) return this.#showMessage(CHOOSE);
    const missing = isFolderMissing(error) && `There is no folder ${folder} yet.\n${ADD}`;
    this.#showMessage(refused.length ? NONE : missing || error);
    const list = h("ul", { class: "lk-notes" }, this.#refusals(refused));
    if (refused.length) this.message.append(list);
  }

  #showMessage(text) {
    this.#folder = null;
    this.#view = { photos: [], refused: [], notes: [] };
    setText(this.message, text);
    setText(this.summary, "Photographs");
    this.#showBody(false);
  }

  #showBody(full) {
    setVisible(this.body, full);
    setVisible(this.toggleButton, full);
    setVisible(this.message, !full);
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
    const marks = warningsOf(photo);
    const label = [photo.name, ...marks].join(", ");
    const { available } = this.leftOut;
    const hint = available && "Click to enlarge it, Delete to leave it out";
    const title = [photo.name, describeSizes(photo), ...marks, hint].filter(Boolean).join("\n");
    return h(
      "button",
      {
        type: "button",
        class: "lk-photo",
        "aria-label": label,
        "aria-keyshortcuts": available && "Delete Backspace",
        title,
        on: { click: () => this.#open(photo.name) },
      },
      this.#whole ? whole(photo) : cropped(photo),
      marks.length > 0 && h("span", { class: "lk-flag" }, icon("warning")),
    );
  }

  #toggle() {
    this.#whole = !this.#whole;
    this.toggleButton.setAttribute("aria-pressed", String(this.#whole));
    this.#show(this.#view);
  }

  #open(name) {
    const { photos } = this.#view;
    const changed = (problem) => lightbox.refresh(problem);
    const tool = this.leftOut.available ? new LeaveOutControl(this.leftOut, changed) : null;
    const lightbox = openLightbox({
      place: { row: 0, column: photos.findIndex((photo) => photo.name === name) },
      rows: 1,
      columns: photos.length,
      image: ({ column }) => {
        const photo = photos[column];
        const isOut = tool?.show(photo.name);
        return {
          title: isOut ? `${photo.name}, left out` : photo.name,
          text: [describeSizes(photo), ...warningsOf(photo)].join(" · "),
          content: pair(photo, isOut),
        };
      },
      tool,
      closed: ({ column }) => document.activeElement === document.body && this.#focus(column),
    });
  }

  #onKey(event) {
    const at = [...this.grid.children].indexOf(event.target);
    if (at < 0 || !this.leftOut.available || !isLeaveOutKey(event)) return;
    event.preventDefault();
    const { name } = this.#view.photos[at];
    if (!event.repeat) this.leftOut.attempt(() => this.leftOut.leaveOut(name));
  }

  /** Hides a photograph that was left out, and reads the folder again wherever it is shown. */
  #onMoved(folder, name) {
    const isShown = folder === this.#folder;
    const at = isShown ? this.#view.photos.findIndex((photo) => photo.name === name) : -1;
    const focused = at >= 0 && this.grid.children[at] === document.activeElement;
    const photos = this.#view.photos.filter((_, number) => number !== at);
    if (at >= 0) this.#show({ ...this.#view, photos });
    if (focused) this.#focus(at);
    for (const panel of panels) if (panel.leftOut.folder === folder) panel.read();
  }

  /** Focuses a photograph, or the last one. */
  #focus(at) {
    const { children } = this.grid;
    (children[Math.min(at, children.length - 1)] ?? this.body).focus({ preventScroll: true });
  }
}

const panels = new Set();

app.registerExtension({
  name: "Likeness.Subject",

  setup() {
    // Widgets promoted to a subgraph node may have been changed there.
    app.canvas.canvas.addEventListener("litegraph:set-graph", ({ detail: { newGraph } }) => {
      for (const panel of panels) if (panel.node.graph === newGraph) panel.scheduleRead();
    });
    api.addEventListener("reconnected", () => panels.forEach((panel) => panel.scheduleRead()));
  },

  /** Called when the user presses R in the editor. */
  refreshComboInNodes() {
    for (const panel of panels) panel.scheduleRead();
  },

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new SubjectPanel(node);
    trackNode(node, {
      added: () => {
        panels.add(panel);
        panel.scheduleRead();
      },
      removed: () => {
        panel.stop();
        panels.delete(panel);
      },
    });
    const scheduleRead = (stale) => panels.has(panel) && panel.scheduleRead(stale);
    node.onDragOver = (event) =>
      [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
    node.onDragDrop = (event) => panel.adder.drop(event.dataTransfer ?? {});
    const dropped = () => (app.dragOverNode = node);
    forwardDrop(panel.element, (event) => node.onDragOver(event), dropped);
    addPanel(node, "likeness_photos", panel.element, { styles: ["subject"], minHeight: 190 });
    for (const name of [...WIDGETS, ...TEXT_WIDGETS]) {
      const widget = widgetOf(node, name);
      if (widget) chainCallback(widget, "callback", () => scheduleRead(WIDGETS.includes(name)));
    }
    chainCallback(node, "onConfigure", () => scheduleRead());
    chainCallback(node, "onConnectionsChange", () => scheduleRead());
  },
});
