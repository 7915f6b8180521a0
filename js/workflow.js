// Keeps the panels in step when a workflow is loaded, cleared or converted.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { pruneNodes } from "./lib/graph.js";
import { restore } from "./lib/node_state.js";

const pruneRemoved = () => pruneNodes(app.rootGraph ?? app.graph);

app.registerExtension({
  name: "Likeness.Workflow",

  setup() {
    // Converting to a subgraph creates new nodes.
    app.canvas.canvas.addEventListener("subgraph-converted", restore);
    api.addEventListener("graphCleared", pruneRemoved);
  },

  /** Must not return a promise: ComfyUI would await it before finishing the load. */
  afterConfigureGraph() {
    pruneRemoved();
    restore();
  },
});
