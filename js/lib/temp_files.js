// Files that the server writes to ComfyUI's temp folder for the panels.

import { api } from "../../../scripts/api.js";

/** URL of a file, by name. */
export function tempUrl(filename) {
  const query = new URLSearchParams({ filename, subfolder: "likeness", type: "temp" });
  return api.apiURL(`/view?${query}`);
}
