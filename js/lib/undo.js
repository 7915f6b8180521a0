// Changes that the user can undo.

import { app } from "../../../scripts/app.js";

/** Makes a change one undo step: ComfyUI itself looks for changes only after clicks and keys. */
export function asUndoStep(change) {
  app.canvas.emitBeforeChange();
  try {
    change();
  } finally {
    app.canvas.emitAfterChange();
  }
}
