// Hides Train Options' advanced settings in the classic renderer; Vue nodes do so on their own.

import { app } from "../../scripts/app.js";
import { chainCallback, schemaOf } from "./lib/node_panel.js";

const NODE = "Likeness_TrainOptions";
const SHOW = "Show advanced inputs";
const HIDE = "Hide advanced inputs";

/** Whether a setting may be hidden: changed and connected ones stay visible. */
function isHideable(node, widget) {
  const { advanced, default: defaultValue } = schemaOf(node, widget.name);
  const input = node.inputs?.find((slot) => slot.widget?.name === widget.name);
  return Boolean(advanced) && widget.value === defaultValue && input?.link == null;
}

/** Shows or hides advanced widgets; `showAdvanced` is core's property, saved with the node. */
function updateVisibility(node, button) {
  for (const widget of node.widgets)
    if (widget !== button) widget.hidden = !node.showAdvanced && isHideable(node, widget);
  button.label = node.showAdvanced ? HIDE : SHOW;
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "Likeness.Options",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const toggle = () => {
      node.showAdvanced = button.label === SHOW;
      updateVisibility(node, button);
      node.setSize([node.size[0], node.computeSize()[1]]);
    };
    // Must come after the schema's widgets, or saved values would shift.
    const options = { canvasOnly: true, serialize: false };
    const button = node.addWidget("button", "likeness_advanced", null, toggle, options);
    button.serialize = false;
    updateVisibility(node, button);
    node.setSize([node.size[0], node.computeSize()[1]]);
    chainCallback(node, "onConfigure", () => updateVisibility(node, button));
  },
});
