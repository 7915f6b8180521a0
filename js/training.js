// The live training panel in the train nodes.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { follow } from "./lib/board.js";
import { takeOver } from "./lib/core_preview.js";
import { button, h, say, show } from "./lib/dom.js";
import { save } from "./lib/download.js";
import { Filmstrip } from "./lib/filmstrip.js";
import { bytes, count, duration, pace } from "./lib/format.js";
import { whileInGraph } from "./lib/graph.js";
import { LossChart } from "./lib/loss_chart.js";
import { addPanel } from "./lib/node_panel.js";
import { whenNothingIsQueued } from "./lib/queue.js";
import { reasonOf } from "./lib/refusal.js";
import { RunReader } from "./lib/run_client.js";
import { secondsLeft } from "./lib/run_state.js";
import { openShareBox } from "./lib/share.js";
import { tempAddress } from "./lib/temp_files.js";

const NODES = ["Likeness_TrainLoRA", "Likeness_TrainDreamBooth"];
const STAGES = {
  load: "Loading the base model",
  "class images": "Drawing class images",
  encode: "Encoding photographs",
  train: "Training",
  save: "Saving",
};
const ENDINGS = {
  finished: "Finished",
  stopped: "Stopped and saved",
  failed: "Failed",
  gone: "The run's folder is gone",
  cancelled: "Interrupted",
};
const SHARED = ["finished", "stopped"];
const EMPTY = "Loss, speed and previews appear here when the training runs.";
const STARTS = "The training starts …";
const INSTEAD = {
  gone: "This run's folder is gone. Queue again to train it anew.",
  cancelled: "The training ended before it began. Queue again to start it.",
  unreadable: "This run was recorded by another version of Likeness; its events cannot be shown.",
};
// Pixels
const MIN_HEIGHT = 250;
const HEIGHT = 354; // with one prompt's previews
const SURE_SECONDS = 4;

class TrainingPanel {
  #reader = null;
  #here = false; // whether this ComfyUI trains the run: another process may, and is not interrupted
  #prompt = ""; // the id of the prompt that trains it here
  #goesOn = false; // whether it was asked to, and has not begun
  #sure = null;
  #told = null; // {text, status}: what came of a click, until the run is in another status
  #remark = null; // {run, text}: what its node says of a run

  constructor() {
    this.state = h("span", { class: "lk-state", role: "status" });
    this.count = h("span", { class: "lk-count" });
    this.done = h("div");
    this.bar = h(
      "div",
      { class: "lk-progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0 },
      this.done,
    );
    this.facts = Object.fromEntries(
      ["Speed", "Time", "Memory"].map((name) => [name, h("dd", {}, "–")]),
    );
    this.stats = h(
      "dl",
      { class: "lk-stats" },
      Object.entries(this.facts).map(([name, value]) => h("div", {}, h("dt", {}, name), value)),
    );
    this.chart = new LossChart();
    this.film = new Filmstrip((path) => this.#pictureAddress(path));
    this.message = h("div", { class: "lk-message", role: "alert" });
    this.body = h(
      "div",
      { class: "lk-training-body", tabindex: "0", dataset: { captureWheel: "true" } },
      this.message,
      this.chart.element,
      this.film.element,
    );
    this.note = h("span", { class: "lk-note", role: "status" });
    this.save = button({
      text: "Stop and save",
      title: "Keep what is learned so far, as a finished adapter",
      click: () => this.#stopAndSave(),
    });
    this.on = button({
      text: "Train on",
      title: "Train the steps that are left; queues the workflow",
      click: () => this.#trainOn(),
    });
    this.share = button({
      text: "Share …",
      title: "Download what this training gave as one zip, without photographs",
      click: () => openShareBox(this.share, (prompts) => this.#pack(prompts)),
    });
    this.cancel = button({ text: "Cancel", kind: "danger", click: () => this.#cancel() });
    this.full = h(
      "div",
      { class: "lk-training" },
      h("div", { class: "lk-head" }, h("span", { class: "lk-dot" }), this.state, this.count),
      this.bar,
      this.stats,
      this.body,
      h("div", { class: "lk-foot" }, this.note, this.save, this.on, this.share, this.cancel),
    );
    this.empty = h("div", { class: "lk-empty" }, EMPTY);
    this.element = h("div", { class: "lk-fill" }, this.empty, this.full);
    show(this.full, false);
  }

  /** Follows a run; also one that begins anew in the same folder, unless it is only `recalled`. */
  follow(run, recalled) {
    const same = this.#reader?.run === run;
    if (same && recalled && this.#reader.working) return this.#reader.read();
    this.#reader?.stop();
    this.#here = false;
    this.#told = null;
    this.#goesOn &&= same;
    this.#reader = new RunReader(
      run,
      (path) => api.fetchApi(path),
      (state) => this.#show(state),
    );
    this.film.clear();
    this.#reader.read();
  }

  /** Tells that the run has gone on, more often than its folder is read. */
  hint({ run, step, total, ended, prompt }) {
    if (this.#reader?.run !== run) return;
    this.#prompt = prompt || this.#prompt;
    if (this.#here === Boolean(ended)) {
      this.#here = !ended;
      this.#showFoot(this.#reader.state);
    }
    if (ended) {
      this.#goesOn = false;
      this.#reader.end();
    } else if (!this.#reader.working) this.#reader.read();
    else if (total > 0) this.#showProgress(step, total);
  }

  /** Shows what the node says of a run, which may be pinned before or after. */
  remark(remark) {
    this.#remark = remark;
    if (this.#reader) this.#showFoot(this.#reader.state);
  }

  stop() {
    this.#reader?.stop();
  }

  /** Nothing is queued any more: a run that was to begin or to go on will not. */
  idle() {
    if (this.#reader?.state.status === "starting") this.#reader.end();
    if (!this.#goesOn) return;
    this.#goesOn = false;
    this.#show(this.#reader.state);
  }

  #show(state) {
    const known = state.stage !== null || state.total > 0;
    say(this.empty, INSTEAD[state.status] ?? STARTS);
    show(this.empty, !known);
    show(this.full, known);
    if (this.#reader.whole && state.status !== "stopped") this.#goesOn = false;
    this.full.dataset.status = this.#goesOn ? "starting" : state.status;
    say(this.state, this.#goesOn ? "Starting …" : statusText(state));
    if (state.stage?.total) this.#showProgress(state.stage.done, state.stage.total);
    else if (state.total) this.#showProgress(state.step, state.total);
    say(this.facts.Speed, pace(state.secondsPerStep) || "–");
    say(this.facts.Time, timeText(state));
    say(this.facts.Memory, bytes(state.memory) || "–");
    show(this.chart.element, state.series.points.length > 1);
    this.chart.update(state.series, state.validation, state.total);
    this.film.update(state.previews);
    say(this.message, state.message);
    show(this.message, state.message !== "");
    this.#showFoot(state);
  }

  #showProgress(step, total) {
    say(this.count, `${count(step)} of ${count(total)}`);
    this.done.style.width = `${Math.min(100, (100 * step) / total)}%`;
    this.bar.setAttribute("aria-valuenow", step);
    this.bar.setAttribute("aria-valuemax", total);
  }

  #showFoot(state) {
    const running = state.status === "running";
    const training = running && state.stage?.name === "train";
    show(this.save, training);
    show(this.on, state.status === "stopped" && Boolean(state.saved));
    this.on.disabled = this.#goesOn;
    show(this.share, SHARED.includes(state.status) && Boolean(state.saved));
    show(this.cancel, running && this.#here);
    if (this.#told?.status !== state.status) this.#told = null;
    const remark = this.#remark?.run === this.#reader.run ? this.#remark.text : "";
    const known = state.saved ? fileName(state.saved) : (state.notices.at(-1) ?? "");
    const text = this.#told?.text ?? (remark || known);
    say(this.note, text);
    const all = [this.#told?.text, remark, ...state.notices, state.saved];
    this.note.title = all.filter(Boolean).join("\n");
    show(this.note.parentElement, running || text !== "");
  }

  #tell(text) {
    const { state } = this.#reader;
    this.#told = { text, status: state.status };
    this.#showFoot(state);
  }

  async #stopAndSave() {
    this.#tell("Saving after this step …");
    await this.#ask(this.save, "stop", "The run could not be stopped");
  }

  async #trainOn() {
    if (!(await this.#ask(this.on, "go-on", "The run cannot go on"))) return;
    this.#goesOn = true;
    this.#told = null;
    this.#show(this.#reader.state);
    if (!(await app.queuePrompt(0))) this.idle();
  }

  /** Asks something of the run; returns whether it will be done. */
  async #ask(asked, what, refusal) {
    asked.disabled = true;
    const route = `/likeness/runs/${encodeURIComponent(this.#reader.run)}/${what}`;
    try {
      const answer = await api.fetchApi(route, { method: "POST" });
      if (!answer.ok) throw new Error(await reasonOf(answer));
      return true;
    } catch (error) {
      this.#tell(`${refusal}: ${error.message}`);
      return false;
    } finally {
      asked.disabled = false;
    }
  }

  /** Has the zip of the run made, and downloads it. */
  async #pack(prompts) {
    const { run } = this.#reader;
    const asked = `/likeness/runs/${encodeURIComponent(run)}/export?prompts=${Number(prompts)}`;
    const answer = await api.fetchApi(asked, { method: "POST" });
    if (!answer.ok) throw new Error(await reasonOf(answer));
    const { file: filename } = await answer.json();
    // The browser may have kept an earlier one of that name.
    save(`${tempAddress(filename)}&t=${Date.now()}`, filename);
  }

  /** Asks for a second click: a cancelled run is kept and can go on, but makes no adapter. */
  #cancel() {
    const label = this.cancel.querySelector("span");
    if (this.#sure === null) {
      say(label, "Cancel without saving?");
      this.#sure = setTimeout(() => {
        say(label, "Cancel");
        this.#sure = null;
      }, SURE_SECONDS * 1000);
      return;
    }
    clearTimeout(this.#sure);
    this.#sure = null;
    say(label, "Cancel");
    api.interrupt(this.#prompt); // whatever else may run by now
  }

  #pictureAddress(path) {
    const parts = path.split("/");
    const filename = parts.pop();
    const subfolder = ["likeness/runs", this.#reader.run, ...parts].join("/");
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type: "output" })}`);
  }
}

/** Without numbers: it is read out when it changes. */
function statusText({ status, saved, stage }) {
  const cancelled = status === "stopped" && !saved;
  const ending = ENDINGS[cancelled ? "cancelled" : status];
  return ending ?? (stage ? (STAGES[stage.name] ?? stage.name) : "Starting");
}

function timeText(state) {
  const left = duration(secondsLeft(state));
  return duration(state.seconds) || (left && `${left} left`) || "–";
}

const fileName = (path) => path.split(/[/\\]/).at(-1);
const panels = new Set();

api.addEventListener("likeness.step", ({ detail }) => {
  for (const panel of panels) panel.hint(detail);
});
whenNothingIsQueued(() => panels.forEach((panel) => panel.idle()));

app.registerExtension({
  name: "Likeness.Training",

  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const panel = new TrainingPanel();
    whileInGraph(node, {
      added: () => panels.add(panel),
      removed: () => {
        panel.stop();
        panels.delete(panel);
      },
    });
    addPanel(node, "likeness_training", panel.element, {
      styles: ["training"],
      minHeight: MIN_HEIGHT,
      height: HEIGHT,
    });
    takeOver(node);
    follow(node, "run", (run, _, recalled) => panel.follow(run, recalled));
    follow(node, "remark", (remark) => panel.remark(remark));
  },
});
