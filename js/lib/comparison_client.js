// What panels ask the server of a comparison.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { reasonOf } from "./refusal.js";

/** {view, scores, report} of a comparison. Throws an Error in words. */
export async function readComparison(name) {
  const answer = await api.fetchApi(`/likeness/comparison?${new URLSearchParams({ name })}`);
  if (!answer.ok) throw new Error(await reasonOf(answer));
  const found = await answer.json();
  if (found.error) throw new Error(found.error);
  return found;
}

/** Where the report of a comparison is shown. */
export function reportAddress(name) {
  return api.apiURL(`/likeness/report?${new URLSearchParams({ name })}`);
}

/** Queues the workflow to draw a cell once more. Returns what to say of it. */
export async function drawAgain({ name, pictures }, index) {
  const asked = new URLSearchParams({ name, picture: pictures[index] });
  try {
    const answer = await api.fetchApi(`/likeness/draw-again?${asked}`, { method: "POST" });
    if (!answer.ok) throw new Error(await reasonOf(answer));
  } catch (error) {
    return `The picture cannot be drawn again: ${error.message}`;
  }
  return (await app.queuePrompt(0))
    ? "Queued: the picture is drawn again."
    : "The workflow was not queued. The picture is drawn again when it is.";
}
