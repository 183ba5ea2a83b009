// What people do in a call: they speak, and show something. See call.js for how.

import { Teller } from "./teller.js";

/** @typedef {import("./call.js").Call} Call */

export class Caller extends Teller {
  #call = /** @type {Call} */ (/** @type {unknown} */ (null)); // until begin()

  /**
   * Must be called before all others.
   *
   * @protected
   * @param {Call} call
   */
  begin(call) {
    this.#call = call;
  }

  /**
   * @protected
   * @param {import("./types.js").HelloMessage} frame
   */
  greeted(frame) {
    this.#call.greeted(frame);
  }

  /**
   * Opens the microphone and the loudspeaker. Must be called from a click: browsers let a page make sound only after the
   * user has touched it. `call` messages tell of it. When the call is in another window (`state.call` is "elsewhere"),
   * this one takes it back.
   *
   * @returns {Promise<void>} rejects with an Error whose message can be shown
   */
  speak() {
    return this.#call.start();
  }

  /**
   * Closes the microphone, the loudspeaker and the camera. The answer under way goes on in writing.
   *
   * @param {string} [why] for people
   */
  hangUp(why = "") {
    this.#call.end(why);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#call.mute(muted);
  }

  /**
   * With push to talk (`state.pushToTalk`): the user begins to speak, or has finished. The microphone is sent only
   * meanwhile. An answer that is being played is stopped.
   *
   * @param {boolean} isTalking
   */
  talk(isTalking) {
    this.#call.talk(isTalking);
  }

  /**
   * Chooses devices, and when the microphone is sent: in the call that is, and in those that follow. What is left out
   * stays as it is.
   *
   * @param {import("./types.js").Choices} choices
   */
  choose(choices) {
    this.#call.choose(choices);
  }

  /**
   * Shows the agent the camera or the screen: in a call, a picture a second. It ends with the call, with `hide()`, or when
   * the user ends it in the browser; `showing` messages tell of it. A screen must be asked for from a click.
   *
   * @param {"camera" | "screen"} what
   * @returns {Promise<void>} rejects with an Error whose message can be shown, and is empty if the user did not want it
   */
  show(what) {
    return this.#call.show(what);
  }

  /** Ends what `show()` has begun. */
  hide() {
    this.#call.hide();
  }

  /** What the camera or the screen gives that is shown, for a `<video>`. */
  get shown() {
    return this.#call.shown;
  }

  /** The microphone and the loudspeaker of the call: its levels, and whether the agent is to be heard. */
  get voice() {
    return this.#call.voice;
  }
}
