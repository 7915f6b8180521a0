// Train Options without its seldom settings, in the classic renderer; Vue nodes do this themselves.

import { app } from "../../scripts/app.js";
import { after, schemaOf } from "./lib/node_panel.js";

const NODE = "Likeness_TrainOptions";
const SHOW = "Show advanced inputs";
const HIDE = "Hide advanced inputs";

/** Whether a setting may be hidden: what was changed or is connected stays in sight. */
function isSeldom(node, widget) {
  const { advanced, default: usual } = schemaOf(node, widget.name);
  const input = node.inputs?.find((slot) => slot.widget?.name === widget.name);
  return Boolean(advanced) && widget.value === usual && input?.link == null;
}

/** Hides or shows; `showAdvanced` is core's own, which it saves with the node. */
function arrange(node, button) {
  for (const widget of node.widgets)
    if (widget !== button) widget.hidden = !node.showAdvanced && isSeldom(node, widget);
  button.label = node.showAdvanced ? HIDE : SHOW;
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "Likeness.Options",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const toggle = () => {
      node.showAdvanced = button.label === SHOW;
      arrange(node, button);
      node.setSize([node.size[0], node.computeSize()[1]]);
    };
    // After the schema's widgets, or saved values would shift.
    const options = { canvasOnly: true, serialize: false };
    const button = node.addWidget("button", "likeness_advanced", null, toggle, options);
    button.serialize = false;
    arrange(node, button);
    node.setSize([node.size[0], node.computeSize()[1]]);
    after(node, "onConfigure", () => arrange(node, button));
  },
});
