// Reads a run's events through the server, block by block, then polls for new ones.

import { addEvents, emptyRun } from "./run_state.js";

const POLL_SECONDS = 1;
const MAX_LINGERING = 60; // reads after a run's end; a file system without locks looks busy for ever

/**
 * Reads a run until it ends.
 * @param fetchApi ComfyUI's `api.fetchApi`
 * @param onChange called with the state whenever it changes; `state.status` is "gone" if the run's
 *   folder does not exist, "cancelled" if the run is unfinished and no process trains it, and
 *   "unreadable" if all its events are of another version
 */
export class RunReader {
  #next = 0;
  #timer = null;
  #reading = false;
  #readAgain = false;
  #lingering = 0; // reads since the run has ended, while its process has not
  ended = false; // whether the run's process is known to have ended
  isWorking = false; // whether a process held the run when it was last read
  isCaughtUp = false; // whether the state reflects all events so far

  constructor(run, fetchApi, onChange) {
    this.run = run;
    this.fetchApi = fetchApi;
    this.onChange = onChange;
    this.state = emptyRun();
  }

  /** Reads new events, and polls every second while the run is active or its process ends. */
  async read() {
    if (this.#reading) {
      this.#readAgain = true;
      return;
    }
    this.#reading = true;
    clearTimeout(this.#timer);
    do {
      this.#readAgain = false;
      await this.#readAll();
    } while (this.#readAgain);
    this.#reading = false;
    const lingers = this.isWorking && this.#lingering++ < MAX_LINGERING;
    if ((this.isActive || lingers) && !this.stopped)
      this.#timer = setTimeout(() => this.read(), POLL_SECONDS * 1000);
  }

  /** Stops reading. */
  stop() {
    this.stopped = true;
    clearTimeout(this.#timer);
  }

  /** The run's process has ended: reads the remaining events. */
  end() {
    this.ended = true;
    return this.read();
  }

  /** Whether more events may come. */
  get isActive() {
    return ["starting", "running"].includes(this.state.status);
  }

  async #readAll() {
    for (let more = true; more && !this.stopped;) {
      const block = await this.#fetchBlock();
      if (block === null || this.stopped) return;
      addEvents(this.state, block.events);
      this.isWorking = block.working;
      more = block.next > this.#next;
      this.#next = block.next;
      this.isCaughtUp = !more;
      if (!more && !block.working) this.#markEnded();
      this.onChange(this.state);
    }
  }

  /** No process trains the run, and there are no more events. */
  #markEnded() {
    const { state } = this;
    if (state.status === "running") state.status = "cancelled";
    else if (state.status !== "starting") return;
    else if (this.#next > 0) state.status = "unreadable";
    else if (this.ended) state.status = "cancelled"; // before its first event
  }

  async #fetchBlock() {
    try {
      const response = await this.fetchApi(
        `/likeness/runs/${encodeURIComponent(this.run)}?start=${this.#next}`,
      );
      if (response.ok) return await response.json();
      if (response.status === 404) [this.state.status, this.isWorking] = ["gone", false];
    } catch {
      // The server is restarting or unreachable: the next attempt may succeed.
      return null;
    }
    if (!this.stopped) this.onChange(this.state);
    return null;
  }
}
