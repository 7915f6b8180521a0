// What the server has written to ComfyUI's temp folder for the panels.

import { api } from "../../../scripts/api.js";

/** Where the file of a name is read. */
export function tempAddress(filename) {
  const asked = new URLSearchParams({ filename, subfolder: "likeness", type: "temp" });
  return api.apiURL(`/view?${asked}`);
}
