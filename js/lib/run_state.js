// Reduces a run's events to its state. Events come from another process, so each is validated.

import { addStep, emptySeries } from "./series.js";

/** The supported version of events (docs/file-formats.md). */
export const VERSION = 1;

const MAX_PREVIEWS = 2000;
const MAX_NOTICES = 100;

/** Initial state of a run, before any event. */
export function emptyRun() {
  return {
    status: "starting", // running, finished, stopped, failed
    stage: null, // {name, done, total, time, from: {done, time}}; `from`: at its first event
    step: 0,
    total: 0,
    series: emptySeries(),
    validation: [], // {step, loss}
    secondsPerStep: null,
    memory: null,
    previews: [], // {step, index, path}
    notices: [], // without repetitions, as of an attempt that resumes
    saved: null,
    adapters: 0, // number of those saved during training
    seconds: null,
    message: "",
    isRestarting: false, // until the next stage, errors are those of processes that are ended
  };
}

/** Applies events to a run in place and returns it; skips other versions and unknown kinds. */
export function addEvents(run, events) {
  for (const event of events) if (isSupported(event)) HANDLERS[event.kind]?.(run, event);
  return run;
}

const isSupported = (event) => event?.v === VERSION && typeof event.kind === "string";

const isCount = (value) => Number.isInteger(value) && value >= 0;
const numberOr = (value, other) => (Number.isFinite(value) ? value : other);
const textOrEmpty = (value) => (typeof value === "string" ? value : "");

const HANDLERS = {
  __proto__: null,

  stage(run, { name, done, total, time }) {
    // Also after "failed" or "stopped": a new attempt appends to the earlier one's events.
    run.status = "running";
    run.message = "";
    run.seconds = null;
    run.saved = null;
    run.isRestarting = false;
    const now = { done: numberOr(done, 0), time: numberOr(time, 0) };
    // A stage's first event with a total may count items done earlier: the pace starts after it.
    const continues = run.stage?.name === name && run.stage.total && run.stage.done <= now.done;
    const from = continues ? run.stage.from : now;
    run.stage = { name: textOrEmpty(name), total: numberOr(total, 0), ...now, from };
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
      // Averages over about ten steps, since the first ones are slower.
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
    run.previews = [...others, { step, index, path }].slice(-MAX_PREVIEWS);
  },

  notice(run, { text }) {
    const others = run.notices.filter((one) => one !== text);
    run.notices = [...others, textOrEmpty(text)].filter(Boolean).slice(-MAX_NOTICES);
  },

  restart(run, event) {
    HANDLERS.notice(run, event);
    run.isRestarting = true;
  },

  adapter(run) {
    run.adapters += 1;
  },

  saved(run, { path }) {
    run.saved = textOrEmpty(path);
  },

  stopped(run) {
    if (run.isRestarting) return;
    run.status = "stopped";
  },

  finished(run, { seconds }) {
    if (run.status !== "stopped") run.status = "finished";
    run.seconds = numberOr(seconds, null);
  },

  failed(run, { message, expected }) {
    // Of several processes, those left alone fail.
    if (run.isRestarting || (run.status === "stopped" && !expected)) return;
    run.status = "failed";
    run.message = textOrEmpty(message);
  },
};

/**
 * Estimated seconds left of drawing or encoding images, or else of training; null if unknown.
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

/** The filmstrip's columns, the sorted preview steps, and rows, the sorted prompt indices. */
export function filmstrip(previews) {
  const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
  return {
    steps: unique(previews.map((p) => p.step)),
    prompts: unique(previews.map((p) => p.index)),
  };
}
