/**
 * Does one thing at a time: what is asked for meanwhile is done afterwards, the last one only.
 * @param work what is done, with the arguments of `ask`; it must not fail
 */
export class OneAtATime {
  busy = false;
  #next = null;

  constructor(work) {
    this.work = work;
  }

  /** Returns when nothing is left to do, or at once if something is being done. */
  async ask(...wanted) {
    this.#next = wanted;
    if (this.busy) return;
    this.busy = true;
    while (this.#next !== null) {
      const now = this.#next;
      this.#next = null;
      await this.work(...now);
    }
    this.busy = false;
  }
}
