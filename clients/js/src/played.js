// How much of an answer was played. A model makes sound faster than it is played, so of an answer that is interrupted the
// user has heard only the beginning: the server is told how much.
//
// All positions count the samples that the player was given in a call. Each of them is then played or thrown away.

const RATE = 24; // samples of the agent's sound in a millisecond

/** @typedef {{ audio_ms: number, seq: number }} Heard */
/** @typedef {{ from: number, isWhole: boolean, seq: number }} Answer where its sound begins; whether the player was given
 *   all of it; the number of its end */

// Invariant: for each time that the player was flushed, and has not said where it was, there is an entry in `#asked`.
export class Played {
  #given = 0;
  #from = 0; // where the open answer begins
  #isWhole;
  /** @type {Answer | null} */
  #last = null;
  /** @type {(Answer | null)[]} */
  #asked = [];

  // `isWhole`: no answer is being given already.
  constructor(isWhole = true) {
    this.#isWhole = isWhole;
  }

  // The player gets so many samples.
  give(samples) {
    this.#given += samples;
  }

  // So much sound of the open answer was lost on its way: the rest comes all the same.
  skip(milliseconds) {
    this.#from -= milliseconds * RATE;
  }

  // The player does not get all sound of the open answer: nobody can say how much of that was heard.
  miss() {
    this.#isWhole = false;
  }

  // The turn is over, by the message with this number.
  ended(seq) {
    this.#last = { from: this.#from, isWhole: this.#isWhole, seq };
    this.#from = this.#given;
    this.#isWhole = true;
  }

  // The player is about to be flushed. `seq`: because the last answer was interrupted, which the message with this number
  // tells; 0: for another reason.
  flush(seq) {
    this.#asked.push(seq && this.#last?.isWhole ? { ...this.#last, seq } : null);
  }

  // The number of the end of the last answer; 0: there was none.
  get lastSeq() {
    return this.#last?.seq ?? 0;
  }

  // The player was flushed, and was at this position. Returns what to tell the server of the answer that was interrupted;
  // null: nothing.
  /** @returns {Heard | null} */
  flushed(at) {
    const answer = this.#asked.shift();
    if (!answer) return null;
    return { audio_ms: Math.max(0, Math.round((at - answer.from) / RATE)), seq: answer.seq };
  }
}
