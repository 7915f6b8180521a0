// A button in Matrix that adds rows: a menu of Load Adapter's files.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button } from "./lib/dom.js";
import { resolveInput, setInput } from "./lib/links.js";
import { addPanel } from "./lib/node_panel.js";
import { openMenu } from "./lib/popup.js";
import { errorMessage } from "./lib/response_error.js";
import { addRow, BASE, hasRow, isComment, newestFirst, parseFiles } from "./lib/rows.js";
import { asUndoStep } from "./lib/undo.js";

const NODE = "Likeness_Matrix";
const HEIGHT = 56; // pixels, of the button and its margins
const KINDS = ["loras", "checkpoints"]; // whose files' ages ComfyUI knows
const ELSEWHERE = "The rows are set in another node.";

/** Opens the menu below the button. */
async function openRows(node, anchor) {
  if (anchor.ariaBusy) return; // a second click while the files are listed
  anchor.ariaBusy = "true";
  const items = await menuItems(node);
  anchor.ariaBusy = null;
  if (!anchor.isConnected) return; // the node was removed meanwhile
  const { left, bottom } = anchor.getBoundingClientRect();
  const place = { x: left, y: bottom + 4, anchor };
  openMenu(items, "Add a row", place, { filter: "Filter the files" });
}

async function menuItems(node) {
  const { value, connected } = resolveInput(node, "adapters");
  if (connected) return [{ text: ELSEWHERE, disabled: true }];
  try {
    const names = await listFiles();
    return [BASE, ...names].map((name) => {
      const isRow = hasRow(value ?? "", name);
      const what = name === BASE ? "The unmodified model" : name;
      const title = isComment(name)
        ? "Lines that begin with # are comments: rename the file"
        : isRow
          ? `${name} is a row already`
          : what;
      const disabled = isRow || isComment(name);
      return { text: name, title, disabled, click: () => add(node, name) };
    });
  } catch (error) {
    return [{ text: `The files cannot be listed. ${error.message}`, disabled: true }];
  }
}

/** Load Adapter's files as they are now, newest first. */
async function listFiles() {
  const [answer, ...lists] = await Promise.all([
    fetchJson("/object_info/Likeness_LoadAdapter"),
    // Without the ages, which this route of ComfyUI may cease to tell, the order is the list's.
    ...KINDS.map((kind) => fetchJson(`/experiment/models/${kind}`).catch(() => [])),
  ]);
  const byKind = Object.fromEntries(KINDS.map((kind, n) => [kind, lists[n]]));
  return newestFirst(parseFiles(answer), byKind);
}

async function fetchJson(route) {
  const response = await api.fetchApi(route);
  if (!response.ok) throw new Error(await errorMessage(response));
  return response.json();
}

function add(node, name) {
  const { value, connected } = resolveInput(node, "adapters");
  if (connected || hasRow(value ?? "", name)) return; // changed while the menu was open
  asUndoStep(() => setInput(node, "adapters", addRow(value ?? "", name)));
  node.graph?.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "Likeness.Matrix",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const element = button({
      text: "Add row …",
      title: "Add a file or the base model to adapters",
      click: ({ currentTarget }) => openRows(node, currentTarget),
    });
    const size = { minHeight: HEIGHT, maxHeight: HEIGHT };
    addPanel(node, "likeness_rows", element, { styles: ["rows"], ...size });
  },
});
