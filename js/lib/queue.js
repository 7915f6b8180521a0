// ComfyUI's queue.

import { api } from "../../../scripts/api.js";

/** Calls `then` whenever the server says that nothing is queued, which it does also after a crash. */
export function whenNothingIsQueued(then) {
  api.addEventListener("status", ({ detail }) => {
    if (detail?.exec_info?.queue_remaining === 0) then();
  });
}
