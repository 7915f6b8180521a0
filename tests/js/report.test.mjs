// The report's script on a stub page: two rows of two images, one of them not drawn.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { runInNewContext } from "node:vm";

const FILE = new URL("../../comparison/report_files/script.js", import.meta.url);
const SCRIPT = readFileSync(FILE, "utf8");

class Element {
  constructor(tagName, className = "") {
    Object.assign(this, { tagName, className, listeners: {}, dataset: {}, classes: new Set() });
    this.classList = {
      remove: (name) => this.classes.delete(name),
      toggle: (name) => this.classes.delete(name) || this.classes.add(name),
    };
  }

  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }

  send(kind, event = {}) {
    const sent = { target: this, prevented: false, ...event };
    sent.preventDefault = () => (sent.prevented = true);
    this.listeners[kind](sent);
    return sent;
  }
}

/** Runs the script on a stub page; `focused` lists the buttons that received the focus. */
function page() {
  const focused = [];
  const parts = { img: new Element("IMG"), figcaption: new Element("FIGCAPTION") };
  const viewer = new Element("DIALOG");
  Object.assign(viewer, {
    open: false,
    querySelector: (name) => parts[name],
    showModal() {
      assert.ok(!viewer.open, "a dialog that is open cannot be opened");
      viewer.open = true;
    },
    close() {
      viewer.open = false;
      viewer.send("close");
    },
  });
  const images = ["0 0", "0 1", "1 1"].map((place) => {
    const [row, column] = place.split(" ");
    const image = new Element("IMG");
    const button = Object.assign(new Element("BUTTON"), { focus: () => focused.push(place) });
    const dataset = { row, column, caption: `caption ${place}` };
    const texts = { src: `data:${place}`, alt: `alt ${place}`, dataset };
    return Object.assign(image, { ...texts, parentElement: button });
  });
  const document = {
    querySelector: (query) => (query === "dialog" ? viewer : null),
    querySelectorAll: (query) => (query === ".sheet img" ? images : []),
  };
  runInNewContext(SCRIPT, { document });
  const open = (place) => images[place].parentElement.send("click");
  const shown = () => [parts.img.src, parts.img.alt, parts.figcaption.textContent].join("|");
  return { viewer, image: parts.img, open, shown, focused };
}

const texts = (place) => `data:${place}|alt ${place}|caption ${place}`;

test("a click shows an image large, with its caption", () => {
  const { viewer, open, shown } = page();
  open(1);
  assert.ok(viewer.open);
  assert.equal(shown(), texts("0 1"));
});

test("arrow keys walk the sheet and stop at its edges and at what is not drawn", () => {
  const { viewer, open, shown } = page();
  open(0);
  const walk = [
    ["ArrowDown", "0 0"], // not drawn
    ["ArrowRight", "0 1"],
    ["ArrowRight", "0 1"],
    ["ArrowDown", "1 1"],
    ["ArrowLeft", "1 1"],
    ["ArrowUp", "0 1"],
    ["ArrowLeft", "0 0"],
  ];
  for (const [key, place] of walk) {
    assert.ok(viewer.send("keydown", { key }).prevented, "the page does not scroll");
    assert.equal(shown(), texts(place), key);
  }
  assert.ok(!viewer.send("keydown", { key: "Escape" }).prevented, "closes it, by the browser");
});

test("a click on the large image shows its own pixels, and the next one fits again", () => {
  const { viewer, image, open } = page();
  open(0);
  const actual = () => viewer.classes.has("actual");
  viewer.send("click", { target: image });
  assert.ok(actual());
  viewer.send("click", { target: image });
  assert.ok(!actual());
  viewer.send("click", { target: image });
  viewer.send("keydown", { key: "ArrowRight" });
  assert.ok(!actual() && viewer.open);
});

test("a click beside the image or on the cross closes, and the focus goes back", () => {
  const { viewer, open, focused } = page();
  open(0);
  viewer.send("keydown", { key: "ArrowRight" });
  viewer.send("click", { target: new Element("FIGCAPTION") });
  assert.ok(viewer.open, "the caption can be selected");
  viewer.send("click");
  open(2);
  viewer.send("click", { target: new Element("BUTTON", "close") });
  assert.ok(!viewer.open);
  assert.deepEqual(focused, ["0 1", "1 1"]);
});
