/**
 * Runs a task serially: of the calls made while it runs, only the last one is run afterwards.
 * @param task async function, given the arguments of `run`; must not reject
 */
export class CoalescingTask {
  busy = false;
  #next = null;

  constructor(task) {
    this.task = task;
  }

  /** Resolves when no call is left, or at once if the task is already running. */
  async run(...args) {
    this.#next = args;
    if (this.busy) return;
    this.busy = true;
    while (this.#next !== null) {
      const current = this.#next;
      this.#next = null;
      await this.task(...current);
    }
    this.busy = false;
  }
}
