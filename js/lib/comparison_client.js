// Server requests about comparisons.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { errorMessage } from "./response_error.js";

/** Fetches {view, scores, report} of a comparison. Throws an Error with a readable message. */
export async function readComparison(name) {
  const response = await api.fetchApi(`/likeness/comparison?${new URLSearchParams({ name })}`);
  if (!response.ok) throw new Error(await errorMessage(response));
  const found = await response.json();
  if (found.error) throw new Error(found.error);
  return found;
}

/** URL of a comparison's report. */
export function reportUrl(name) {
  return api.apiURL(`/likeness/report?${new URLSearchParams({ name })}`);
}

/** Queues the workflow to redraw a cell. Returns a message for the user. */
export async function redrawCell({ name, images }, index) {
  const query = new URLSearchParams({ name, image: images[index] });
  try {
    const response = await api.fetchApi(`/likeness/draw-again?${query}`, { method: "POST" });
    if (!response.ok) throw new Error(await errorMessage(response));
  } catch (error) {
    return `The image could not be redrawn: ${error.message}`;
  }
  return (await app.queuePrompt(0))
    ? "Queued: the image will be redrawn."
    : "The workflow was not queued. The image will be redrawn at the next run.";
}
