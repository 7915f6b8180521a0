// The photographs in Subject, as they are trained, before anything is queued.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button, h, icon, say, show } from "./lib/dom.js";
import { openLightbox } from "./lib/lightbox.js";
import { addPanel, isConnected, onReady, onRemoved, widgetOf } from "./lib/node_panel.js";
import {
  cropPlace,
  hasToken,
  isMaterial,
  isWhole,
  markCaptions,
  marksOf,
  photosOf,
  sizesOf,
  summary,
} from "./lib/photos.js";

const NODE = "Likeness_Subject";
const WIDGETS = ["folder", "resolution", "crop", "face_share", "buckets", "captions"];
const WORDS = ["token", "prompt"];
const BUNDLED = "miniature (bundled)"; // no folder of the user's
const WAIT = 400; // ms after the last change

class SubjectPanel {
  #asked = 0;
  #timer = null;
  #view = { photos: [], refused: [], notes: [] };
  #whole = false;

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

  /** Reads the folder soon; changes in a row read it once. */
  later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.read(), WAIT);
  }

  async read() {
    const asked = ++this.#asked;
    const values = Object.fromEntries(
      WIDGETS.map((name) => [name, widgetOf(this.node, name)?.value]),
    );
    if (isConnected(this.node, "folder"))
      return this.#say(
        "The folder comes from another node; its photographs are read when it runs.",
      );
    if (!values.folder)
      return this.#say(
        "There is no folder with photographs. Make one in ComfyUI's input folder and press R.",
      );
    if (!this.#view.photos.length) this.#say("Reading the photographs …");
    const view = await this.#ask(values);
    if (asked !== this.#asked) return;
    if (view.error) return this.#say(view.error);
    const wired = WIDGETS.filter((name) => isConnected(this.node, name));
    if (wired.length)
      view.notes.unshift(`By wire: ${wired.join(", ")}. Shown is what the defaults would give.`);
    this.#checkWords(view);
    this.#show(view);
  }

  /** Notes which captions, or whether the prompt of all others, does not name the subject. */
  #checkWords(view) {
    if (WORDS.some((name) => isConnected(this.node, name))) return;
    const [token, prompt] = WORDS.map((name) => widgetOf(this.node, name)?.value ?? "");
    markCaptions(view.photos, token);
    const prompted = view.photos.some(({ caption }) => !caption);
    if (prompted && token.trim() && !hasToken(prompt, token.trim()))
      view.notes.unshift(`The prompt lacks the token ${token}: nothing is learned for it.`);
  }

  /** Puts files that were dropped on the node into its folder; false where there is none. */
  async take(files) {
    const folder = widgetOf(this.node, "folder")?.value;
    const photos = files.filter(isMaterial);
    const others = files.filter((file) => !isMaterial(file)).map((file) => file.name);
    if (!photos.length || !folder || folder === BUNDLED || isConnected(this.node, "folder"))
      return false;
    for (const [n, photo] of photos.entries()) {
      say(this.summary, `Copying ${n + 1} of ${photos.length} …`);
      const body = new FormData();
      body.append("image", photo);
      body.append("type", "input");
      body.append("subfolder", folder);
      // Under another name it would be nobody's caption.
      if (photo.name.toLowerCase().endsWith(".txt")) body.append("overwrite", "true");
      const answer = await api.fetchApi("/upload/image", { method: "POST", body });
      if (!answer.ok) {
        this.#say(`${photo.name} could not be copied: ${answer.status} ${answer.statusText}.`);
        return true;
      }
    }
    await this.read();
    if (others.length) say(this.summary, `Neither photograph nor caption: ${others.join(", ")}.`);
    return true;
  }

  async #ask({ folder, ...others }) {
    const query = new URLSearchParams({ folder });
    for (const [name, value] of Object.entries(others)) {
      if (value !== undefined && !isConnected(this.node, name))
        query.set(name, JSON.stringify(value));
    }
    try {
      const answer = await api.fetchApi(`/likeness/photos?${query}`);
      if (!answer.ok) throw new Error(`The server answered ${answer.status} ${answer.statusText}.`);
      return photosOf(await answer.json());
    } catch (error) {
      return { error: `The photographs cannot be read. ${error.message}` };
    }
  }

  #show(view) {
    this.#view = view;
    say(this.summary, summary(view));
    this.grid.replaceChildren(...view.photos.map((photo, n) => this.#photo(photo, n)));
    const marked = view.photos.flatMap((photo) =>
      marksOf(photo).map((mark) => this.#line(photo.name, mark, "warn")),
    );
    const refused = view.refused.map(({ name, reason }) =>
      this.#line(name, `refused: ${reason}`, "bad"),
    );
    this.list.replaceChildren(
      ...marked,
      ...refused,
      ...view.notes.map((note) => h("li", {}, note)),
    );
    show(this.list, this.list.childElementCount > 0);
    this.#mode(true);
  }

  #say(text) {
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

  #photo(photo, index) {
    const marks = marksOf(photo);
    const label = [photo.name, ...marks].join(", ");
    const title = [photo.name, sizesOf(photo), ...marks].join("\n");
    const open = () => this.#open(index);
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

  #open(index) {
    const { photos } = this.#view;
    openLightbox({
      place: { row: 0, column: index },
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

function address(filename) {
  return api.apiURL(
    `/view?${new URLSearchParams({ filename, subfolder: "likeness", type: "temp" })}`,
  );
}

function cropped({ crop, size }) {
  return h("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    src: address(crop),
    width: size[0],
    height: size[1],
  });
}

/** The whole photograph, dark outside of the crop. */
function whole(photo) {
  return h(
    "span",
    { class: "lk-whole", style: { "aspect-ratio": photo.width / photo.height } },
    h("img", { alt: "", loading: "lazy", decoding: "async", src: address(photo.whole) }),
    isWhole(photo) || h("span", { class: "lk-crop", style: cropPlace(photo) }),
  );
}

/** Whole and as trained, side by side. */
function pair(photo) {
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

const panels = new Set();

app.registerExtension({
  name: "Likeness.Subject",

  /** R in the editor. */
  refreshComboInNodes() {
    for (const panel of panels) panel.later();
  },

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const panel = new SubjectPanel(node);
    panels.add(panel);
    node.onDragOver = (event) =>
      [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
    node.onDragDrop = (event) => panel.take([...(event.dataTransfer?.files ?? [])]);
    onRemoved(node, () => panels.delete(panel));
    addPanel(node, "likeness_photos", panel.element, { styles: ["subject"], minHeight: 190 });
    for (const name of [...WIDGETS, ...WORDS]) {
      const widget = widgetOf(node, name);
      const before = widget?.callback;
      if (widget)
        widget.callback = function () {
          const result = before?.apply(this, arguments);
          panel.later();
          return result;
        };
    }
    onReady(node, () => panel.later());
    const before = node.onConnectionsChange;
    node.onConnectionsChange = function () {
      before?.apply(this, arguments);
      panel.later();
    };
    panel.later();
  },
});
