// A run, read from its folder through the server: block by block, and then as it grows.

import { addEvents, emptyRun } from "./run_state.js";

const SECONDS = 1;

/**
 * Reads a run until it ends.
 * @param fetchApi ComfyUI's
 * @param told called with the state whenever it changes; `state.status` is "gone" when the run's
 *   folder is not there (any more), "cancelled" when it has not ended and nobody trains it, and
 *   "unreadable" when all its events are of another version
 */
export class RunReader {
  #next = 0;
  #timer = null;
  #reading = false;
  #again = false;
  ended = false; // whether its process is known to have ended
  whole = false; // whether the state is of all that the run has said so far

  constructor(run, fetchApi, told) {
    this.run = run;
    this.fetchApi = fetchApi;
    this.told = told;
    this.state = emptyRun();
  }

  /** Reads what is new, and goes on once a second while the run works. */
  async read() {
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    clearTimeout(this.#timer);
    do {
      this.#again = false;
      await this.#readAll();
    } while (this.#again);
    this.#reading = false;
    if (this.working && !this.stopped) this.#timer = setTimeout(() => this.read(), SECONDS * 1000);
  }

  /** Reads no more. */
  stop() {
    this.stopped = true;
    clearTimeout(this.#timer);
  }

  /** Its process has ended: reads what is left. */
  end() {
    this.ended = true;
    return this.read();
  }

  /** Whether more is to come. */
  get working() {
    return ["starting", "running"].includes(this.state.status);
  }

  async #readAll() {
    for (let more = true; more && !this.stopped;) {
      const before = this.#next;
      const answer = await this.#ask();
      if (answer === null || this.stopped) return;
      addEvents(this.state, answer.events);
      this.#next = answer.next;
      more = answer.next > before;
      this.whole = !more;
      if (!more && !answer.working) this.#leave();
      this.told(this.state);
    }
  }

  /** Nobody trains the run, and there are no more events. */
  #leave() {
    const { state } = this;
    if (state.status === "running") state.status = "cancelled";
    else if (state.status !== "starting") return;
    else if (this.#next > 0) state.status = "unreadable";
    else if (this.ended) state.status = "cancelled"; // before its first word
  }

  async #ask() {
    try {
      const answer = await this.fetchApi(
        `/likeness/runs/${encodeURIComponent(this.run)}?start=${this.#next}`,
      );
      if (answer.ok) return await answer.json();
      this.state.status = answer.status === 404 ? "gone" : this.state.status;
    } catch {
      // The server restarts, or the network is away: the next try may succeed.
      return null;
    }
    if (!this.stopped) this.told(this.state);
    return null;
  }
}
