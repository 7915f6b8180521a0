// Files in ComfyUI's output folder.

import { api } from "../../../scripts/api.js";

/** URL of a file, by its name and its folder below the output folder. */
export function outputUrl(filename, subfolder) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type: "output" })}`);
}
