// What a run's events add up to. The events are another program's: each is checked.

import { addStep, emptySeries } from "./series.js";

/** The version of events that is understood (docs/file-formats.md). */
export const VERSION = 1;

const MOST_PREVIEWS = 2000;
const MOST_NOTICES = 20;

/** The state of a run of which nothing is known yet. */
export function emptyRun() {
  return {
    status: "starting", // running, finished, stopped, failed
    stage: null, // {name, done, total, time, from: {done, time}}: now, and when it began
    step: 0,
    total: 0,
    series: emptySeries(),
    validation: [], // {step, loss}
    secondsPerStep: null,
    memory: null,
    previews: [], // {step, index, path}
    notices: [],
    saved: null,
    seconds: null,
    message: "",
  };
}

/** Adds events to a run, in place; other versions and unknown kinds are passed over. Returns it. */
export function addEvents(run, events) {
  for (const event of events) if (isOurs(event)) HANDLERS[event.kind]?.(run, event);
  return run;
}

const isOurs = (event) => event?.v === VERSION && typeof event.kind === "string";

const isCount = (value) => Number.isInteger(value) && value >= 0;
const numberOr = (value, other) => (Number.isFinite(value) ? value : other);
const textOf = (value) => (typeof value === "string" ? value : "");

const HANDLERS = {
  __proto__: null,

  stage(run, { name, done, total, time }) {
    // Also after "failed" or "stopped": an attempt appends to the events of the one before.
    run.status = "running";
    run.message = "";
    run.seconds = null;
    run.saved = null;
    const now = { done: numberOr(done, 0), time: numberOr(time, 0) };
    // Of what was there already the first event of a number tells: the pace is of what follows.
    const goesOn = run.stage?.name === name && run.stage.total && run.stage.done <= now.done;
    const from = goesOn ? run.stage.from : now;
    run.stage = { name: textOf(name), total: numberOr(total, 0), ...now, from };
  },

  step(run, event) {
    if (!isCount(event.step) || !isCount(event.total)) return;
    run.status = "running";
    run.step = event.step;
    run.total = event.total;
    run.previews = run.previews.filter((preview) => preview.step <= event.step);
    run.validation = run.validation.filter((value) => value.step <= event.step);
    addStep(run.series, {
      step: event.step,
      loss: numberOr(event.loss, null),
      prior: numberOr(event.prior_loss, null),
      rate: numberOr(event.learning_rate, null),
    });
    const seconds = numberOr(event.seconds, null);
    if (seconds !== null) {
      // The last ten steps or so; the first ones are slower.
      run.secondsPerStep =
        run.secondsPerStep === null ? seconds : 0.9 * run.secondsPerStep + 0.1 * seconds;
    }
    run.memory = numberOr(event.memory, run.memory);
  },

  validation(run, { step, loss }) {
    if (isCount(step) && Number.isFinite(loss)) run.validation.push({ step, loss });
  },

  preview(run, { step, index, path }) {
    if (!isCount(step) || !isCount(index) || typeof path !== "string") return;
    const others = run.previews.filter((one) => one.step !== step || one.index !== index);
    run.previews = [...others, { step, index, path }].slice(-MOST_PREVIEWS);
  },

  notice(run, { text }) {
    run.notices = [...run.notices, textOf(text)].slice(-MOST_NOTICES);
  },

  saved(run, { path }) {
    run.saved = textOf(path);
  },

  stopped(run) {
    run.status = "stopped";
  },

  finished(run, { seconds }) {
    if (run.status !== "stopped") run.status = "finished";
    run.seconds = numberOr(seconds, null);
  },

  failed(run, { message }) {
    run.status = "failed";
    run.message = textOf(message);
  },
};

/**
 * Seconds until the end of the pictures that are drawn or encoded, or of the last step, at the pace
 * so far; null if nothing can be said.
 */
export function secondsLeft(run) {
  if (run.status !== "running") return null;
  const { done, total, time, from } = run.stage ?? {};
  if (total) {
    const pace = (time - from.time) / (done - from.done);
    return done > from.done && pace > 0 ? (total - done) * pace : null;
  }
  if (run.secondsPerStep === null || !run.total) return null;
  return (run.total - run.step) * run.secondsPerStep;
}

/** Preview steps in order, and the numbers of the prompts: the filmstrip's columns and rows. */
export function filmstrip(previews) {
  const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
  return {
    steps: unique(previews.map((p) => p.step)),
    prompts: unique(previews.map((p) => p.index)),
  };
}
