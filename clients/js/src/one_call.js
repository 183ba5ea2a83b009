// Of all windows of a browser in which a user has a call, one has the microphone and the loudspeaker: otherwise both would
// play the same answer, and each would hear the other. The browser keeps a lock for it, and gives that back when a window
// is closed or crashes.

export class OneCall {
  #name;
  #lost;
  /** @type {(() => void) | null} */
  #release = null;

  /**
   * @param {string} name the same in all windows that exclude each other
   * @param {() => void} lost another window has taken it
   */
  constructor(name, lost) {
    this.#name = name;
    this.#lost = lost;
  }

  // Takes it from the window that has it.
  take() {
    this.leave();
    if (typeof navigator === "undefined" || !navigator.locks) return; // each window is alone then
    const held = new Promise((resolve) => (this.#release = () => resolve(undefined)));
    const mine = this.#release;
    navigator.locks.request(this.#name, { steal: true }, () => held).catch(() => {
      if (this.#release !== mine) return; // it was given back
      this.#release = null;
      this.#lost();
    });
  }

  leave() {
    this.#release?.();
    this.#release = null;
  }
}
