// What the panels do when the workflow as a whole changes, and when the server is back.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { recall } from "./lib/board.js";
import { leaveAllBut } from "./lib/graph.js";

const leaveRemoved = () => leaveAllBut(app.rootGraph ?? app.graph);

app.registerExtension({
  name: "Likeness.Workflow",

  setup() {
    // The nodes of a new subgraph are new ones.
    app.canvas.canvas.addEventListener("subgraph-converted", recall);
    api.addEventListener("graphCleared", leaveRemoved);
  },

  /** Loading waits for what this returns. */
  afterConfigureGraph() {
    leaveRemoved();
    recall();
  },
});
