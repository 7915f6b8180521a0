// A run's status and time in words.

import { duration } from "./format.js";
import { secondsLeft } from "./run_state.js";

const STAGES = {
  load: "Loading the base model",
  "class images": "Generating class images",
  encode: "Encoding images",
  train: "Training",
  save: "Saving",
};
const ENDINGS = {
  finished: "Finished",
  stopped: "Stopped and saved",
  failed: "Failed",
  gone: "The run's folder is missing",
  cancelled: "Interrupted",
};

/** The status of a run, without numbers: screen readers announce every change. */
export function statusText({ status, saved, stage }) {
  const cancelled = status === "stopped" && !saved;
  const ending = ENDINGS[cancelled ? "cancelled" : status];
  return ending ?? (stage ? (STAGES[stage.name] ?? stage.name) : "Starting");
}

export function timeText(state) {
  const left = duration(secondsLeft(state));
  return duration(state.seconds) || (left && `${left} left`) || "–";
}
