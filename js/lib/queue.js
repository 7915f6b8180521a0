// ComfyUI's queue.

import { api } from "../../../scripts/api.js";

/** Calls `callback` whenever the server reports an empty queue, as it also does after a crash. */
export function onQueueEmpty(callback) {
  api.addEventListener("status", ({ detail }) => {
    if (detail?.exec_info?.queue_remaining === 0) callback();
  });
}
