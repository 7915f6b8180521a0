// The live training panel in the train nodes.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { hideCorePreview } from "./lib/core_preview.js";
import { ClassImages } from "./lib/class_images.js";
import { button, h, reconcile, setText, setVisible } from "./lib/dom.js";
import { downloadUrl } from "./lib/download.js";
import { Filmstrip } from "./lib/filmstrip.js";
import { bytes, count, pace } from "./lib/format.js";
import { trackNode } from "./lib/graph.js";
import { LossChart } from "./lib/loss_chart.js";
import { addPanel } from "./lib/node_panel.js";
import { subscribe } from "./lib/node_state.js";
import { outputUrl } from "./lib/output_files.js";
import { onQueueEmpty } from "./lib/queue.js";
import { errorMessage } from "./lib/response_error.js";
import { RunReader } from "./lib/run_client.js";
import { RunFiles } from "./lib/run_files.js";
import { statusText, timeText } from "./lib/run_texts.js";
import { openShareBox } from "./lib/share.js";
import { tempUrl } from "./lib/temp_files.js";

const NODES = ["Likeness_TrainLoRA", "Likeness_TrainDreamBooth"];
const SHAREABLE = ["finished", "stopped"];
const EMPTY = "Loss, speed and previews appear here during training.";
const STARTING = "Starting training …";
const PLACEHOLDERS = {
  gone: "This run's folder is missing. Queue again to retrain.",
  cancelled: "Interrupted before training started. Queue again to start it.",
  unreadable: "This run was recorded by another version of Likeness; its events cannot be shown.",
};
// Pixels
const MIN_HEIGHT = 250;
const HEIGHT = 400; // fits a notice and the previews of one prompt
const CONFIRM_SECONDS = 4;

class TrainingPanel {
  #reader = null;
  #isLocal = false; // trained by this ComfyUI; a run of another process cannot be interrupted
  #promptId = ""; // of the prompt that trains the run here
  #isResuming = false; // requested, but not started yet
  #confirmTimer = null;
  #feedback = null; // {text, status}: result of a click, shown until the run's status changes
  #remark = null; // {run, text}: the node's remark on a run

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
    this.film = new Filmstrip((path) => this.#previewUrl(path));
    this.classImages = new ClassImages((run) => this.#fetch(run, "class-images"));
    this.files = new RunFiles(
      (run) => this.#fetch(run, "files"),
      (run) => this.#deleteState(run),
    );
    this.message = h("div", { class: "lk-message", role: "alert" });
    const scrolls = { tabindex: "0", dataset: { captureWheel: "true" } };
    this.notices = h("ul", { class: "lk-notes", role: "list", "aria-label": "Notices", ...scrolls });
    this.notices.setAttribute("aria-live", "polite");
    this.body = h(
      "div",
      { class: "lk-training-body", ...scrolls },
      this.message,
      this.notices,
      this.chart.element,
      this.film.element,
      this.classImages.element,
      this.files.deletion.element,
    );
    this.note = h("span", { class: "lk-note", role: "status" });
    this.saveButton = button({
      text: "Stop and save",
      title: "Stop after this step and save the result so far",
      click: () => this.#stopAndSave(),
    });
    this.resumeButton = button({
      text: "Resume",
      title: "Train the remaining steps (queues the workflow)",
      click: () => this.#resume(),
    });
    this.shareButton = button({
      text: "Share …",
      title: "Download the result as a zip, without photographs",
      click: () => this.#share(this.#reader.run),
    });
    this.cancelButton = button({ text: "Cancel", kind: "danger", click: () => this.#cancel() });
    const foot = [
      ...[this.note, this.files.result, this.saveButton, this.resumeButton],
      ...[this.files.menuButton, this.shareButton, this.cancelButton],
    ];
    this.full = h(
      "div",
      { class: "lk-training" },
      h("div", { class: "lk-head" }, h("span", { class: "lk-dot" }), this.state, this.count),
      this.bar,
      this.stats,
      this.body,
      h("div", { class: "lk-foot" }, foot),
    );
    this.empty = h("div", { class: "lk-empty" }, EMPTY);
    this.element = h("div", { class: "lk-fill" }, this.empty, this.full);
    setVisible(this.full, false);
  }

  /** Shows a run live; rereads one that restarts in the same folder unless merely `restored`. */
  showRun(run, restored) {
    const same = this.#reader?.run === run;
    if (same && restored && this.#reader.isActive) return this.#reader.read();
    this.#reader?.stop();
    this.#isLocal = false;
    this.#feedback = null;
    this.#isResuming &&= same;
    this.#reader = new RunReader(
      run,
      (path) => api.fetchApi(path),
      (state) => this.#show(state),
    );
    this.film.clear();
    this.files.reset();
    this.#reader.read();
  }

  /** Handles a progress event; these come more often than the run is polled. */
  onProgress({ run, step, total, ended, prompt }) {
    if (this.#reader?.run !== run) return;
    this.#promptId = prompt || this.#promptId;
    if (this.#isLocal === Boolean(ended)) {
      this.#isLocal = !ended;
      this.#showFoot(this.#reader.state);
    }
    if (ended) {
      this.#isResuming = false;
      this.#reader.end();
    } else if (!this.#reader.isActive) this.#reader.read();
    else if (total > 0) this.#showProgress(step, total);
  }

  /** Shows the node's remark on a run; it may arrive before or after the run itself. */
  setRemark(remark) {
    this.#remark = remark;
    if (this.#reader) this.#showNotices(this.#reader.state);
  }

  stop() {
    this.#reader?.stop();
  }

  /** The queue is empty: a run waiting to start or resume will not do so. */
  idle() {
    if (this.#reader?.state.status === "starting") this.#reader.end();
    if (!this.#isResuming) return;
    this.#isResuming = false;
    this.#show(this.#reader.state);
  }

  #show(state) {
    const known = state.stage !== null || state.total > 0;
    setText(this.empty, PLACEHOLDERS[state.status] ?? STARTING);
    setVisible(this.empty, !known);
    setVisible(this.full, known);
    if (this.#reader.isCaughtUp && state.status !== "stopped") this.#isResuming = false;
    this.full.dataset.status = this.#isResuming ? "starting" : state.status;
    setText(this.state, this.#isResuming ? "Starting …" : statusText(state));
    if (state.stage?.total) this.#showProgress(state.stage.done, state.stage.total);
    else if (state.total) this.#showProgress(state.step, state.total);
    setText(this.facts.Speed, pace(state.secondsPerStep) || "–");
    setText(this.facts.Time, timeText(state));
    setText(this.facts.Memory, bytes(state.memory) || "–");
    setVisible(this.chart.element, state.series.points.length > 1);
    this.chart.update(state.series, state.validation, state.total);
    this.film.update(state.previews);
    this.classImages.update(this.#reader);
    setText(this.message, state.message);
    setVisible(this.message, state.message !== "");
    this.#showNotices(state);
    this.#showFoot(state);
  }

  /** Shows the node's remark, then the run's notices, the newest first. */
  #showNotices({ notices }) {
    const remark = this.#remark?.run === this.#reader.run ? this.#remark.text : "";
    const texts = new Set([remark, ...notices.toReversed()].filter(Boolean));
    reconcile(
      this.notices,
      [...texts].map((text) => [text, () => h("li", {}, text)]),
    );
    setVisible(this.notices, texts.size > 0);
  }

  #showProgress(step, total) {
    setText(this.count, `${count(step)} of ${count(total)}`);
    this.done.style.width = `${Math.min(100, (100 * step) / total)}%`;
    this.bar.setAttribute("aria-valuenow", step);
    this.bar.setAttribute("aria-valuemax", total);
  }

  #showFoot(state) {
    const running = state.status === "running";
    const training = running && state.stage?.name === "train";
    setVisible(this.saveButton, training);
    setVisible(this.resumeButton, state.status === "stopped" && Boolean(state.saved));
    this.resumeButton.disabled = this.#isResuming;
    setVisible(this.shareButton, SHAREABLE.includes(state.status) && Boolean(state.saved));
    setVisible(this.cancelButton, running && this.#isLocal);
    if (this.#feedback?.status !== state.status) this.#feedback = null;
    setText(this.note, (this.note.title = this.#feedback?.text ?? ""));
    setVisible(this.note, this.#feedback !== null);
    if (this.#reader.isCaughtUp) this.files.update(this.#reader);
    const hasFiles = state.saved || state.adapters > 0;
    setVisible(this.note.parentElement, running || this.#feedback || hasFiles);
  }

  #setFeedback(text) {
    const { state } = this.#reader;
    this.#feedback = { text, status: state.status };
    this.#showFoot(state);
  }

  async #stopAndSave() {
    this.#setFeedback("Saving after this step …");
    await this.#postAction(this.saveButton, "stop", "The run could not be stopped");
  }

  async #resume() {
    const failure = "The run could not be resumed";
    if (!(await this.#postAction(this.resumeButton, "go-on", failure))) return;
    this.#isResuming = true;
    this.#feedback = null;
    this.#show(this.#reader.state);
    if (!(await app.queuePrompt(0))) this.idle();
  }

  /** Posts an action on the run; returns whether the server accepted it. */
  async #postAction(trigger, action, failure) {
    trigger.disabled = true;
    try {
      await this.#post(this.#reader.run, action);
      return true;
    } catch (error) {
      this.#setFeedback(`${failure}: ${error.message}`);
      return false;
    } finally {
      trigger.disabled = false;
    }
  }

  /** Posts an action on a run; returns the answer, or throws an Error to be read. */
  async #post(run, action) {
    const route = `/likeness/runs/${encodeURIComponent(run)}/${action}`;
    const response = await api.fetchApi(route, { method: "POST" });
    if (!response.ok) throw new Error(await errorMessage(response));
    return response.json();
  }

  #share(run) {
    openShareBox(this.shareButton, (prompts) => this.#pack(run, prompts));
  }

  /** Has the server pack a run as a zip, then downloads it. */
  async #pack(run, prompts) {
    const { file: filename } = await this.#post(run, `export?prompts=${Number(prompts)}`);
    // The browser may have cached an earlier zip of that name.
    downloadUrl(`${tempUrl(filename)}&t=${Date.now()}`, filename);
  }

  async #deleteState(run) {
    await this.#post(run, "clean");
    this.files.reset();
    this.#showFoot(this.#reader.state);
  }

  /** Needs a second click: a cancelled run can be resumed, but yields no adapter. */
  #cancel() {
    const label = this.cancelButton.querySelector("span");
    if (this.#confirmTimer === null) {
      setText(label, "Click again to cancel");
      this.#confirmTimer = setTimeout(() => {
        setText(label, "Cancel");
        this.#confirmTimer = null;
      }, CONFIRM_SECONDS * 1000);
      return;
    }
    clearTimeout(this.#confirmTimer);
    this.#confirmTimer = null;
    setText(label, "Cancel");
    api.interrupt(this.#promptId); // another prompt may be running by now
  }

  /** What the server says of a run's `files` or `class-images`; null if it cannot be reached. */
  async #fetch(run, what) {
    try {
      const response = await api.fetchApi(`/likeness/runs/${encodeURIComponent(run)}/${what}`);
      return response.ok ? await response.json() : null;
    } catch {
      return null; // it is restarting
    }
  }

  #previewUrl(path) {
    const parts = path.split("/");
    const filename = parts.pop();
    return outputUrl(filename, ["likeness/runs", this.#reader.run, ...parts].join("/"));
  }
}

const panels = new Set();

api.addEventListener("likeness.step", ({ detail }) => {
  for (const panel of panels) panel.onProgress(detail);
});
onQueueEmpty(() => panels.forEach((panel) => panel.idle()));

app.registerExtension({
  name: "Likeness.Training",

  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const panel = new TrainingPanel();
    trackNode(node, {
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
    hideCorePreview(node);
    subscribe(node, "run", (run, _, restored) => panel.showRun(run, restored));
    subscribe(node, "remark", (remark) => panel.setRemark(remark));
  },
});
