// Whether the microphone hears what the loudspeaker plays: then echo cancellation does not work, whatever the browser says.
//
// Both levels are measured on the audio thread, at the same moments (see recorder.worklet.js). What is played comes back
// later, and quieter, but it rises and falls in the same way. A user who speaks, and noise, do not.

const FRAME = 0.04; // seconds between two levels
const MAX_DELAY = Math.round(0.6 / FRAME); // until sound comes back: through Bluetooth it may take half a second
const ENOUGH = 2 / FRAME; // levels of played sound that make a judgement
const ALL = 10 / FRAME; // after so many, what has not been heard until now is not heard
const SETTLING = 1 / FRAME; // levels that are not looked at: a canceller first learns how the room sounds
const SAME = 0.7; // correlation from which both levels rise and fall in the same way
const FLOOR = -55; // decibels of full scale: what is quieter disturbs nobody
const PLAYED = -45; // decibels of sound that can be heard
const STEP = 5; // levels between two judgements

export class EchoMeter {
  /** @type {"unknown" | "echo" | "none"} */
  verdict = "unknown";
  #played = [];
  #heard = [];
  #audible = 0; // levels of played sound so far
  #rest = 0; // levels for which the last played sound may still come back
  #confirmed = 0;

  /**
   * @param {number} played root mean square of what was played in 40 ms, 1 is full scale
   * @param {number} heard the same of the microphone, at the same time
   * @returns {boolean} whether the verdict is new
   */
  add(played, heard) {
    if (this.verdict !== "unknown") return false;
    const isAudible = decibels(played) > PLAYED;
    this.#rest = isAudible ? MAX_DELAY : this.#rest - 1;
    if (this.#rest < 0) return false; // between two answers there is nothing to be heard
    if (isAudible) this.#audible++;
    if (this.#audible < SETTLING) return false;
    this.#played.push(played);
    this.#heard.push(heard);
    if (this.#audible < SETTLING + ENOUGH || this.#played.length % STEP) return false;
    const { correlation } = echoOf(this.#played, this.#heard);
    this.#confirmed = correlation > SAME ? this.#confirmed + 1 : 0;
    if (this.#confirmed > 1) this.verdict = "echo";
    else if (this.#audible > SETTLING + ALL) this.verdict = "none";
    return this.verdict !== "unknown";
  }
}

/**
 * How much two series of levels are alike, if one is later by up to 0.6 s.
 *
 * @param {readonly number[]} played root mean squares, one each 40 ms
 * @param {readonly number[]} heard
 * @returns {{ correlation: number, delay: number }} -1 to 1, and seconds
 */
export function echoOf(played, heard) {
  const [before, after] = [played.map(decibels), heard.map(decibels)];
  let best = { correlation: 0, delay: 0 };
  for (let delay = 0; delay <= MAX_DELAY && delay < before.length / 2; delay++) {
    const correlation = pearson(before.slice(0, before.length - delay), after.slice(delay));
    if (correlation > best.correlation) best = { correlation, delay: delay * FRAME };
  }
  return best;
}

/** The loudness of a level; what is too quiet to disturb is all the same. */
export const decibels = (level) => Math.max(FLOOR, 20 * Math.log10(level + 1e-9));

function pearson(a, b) {
  const n = a.length;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / n;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    const [x, y] = [a[i] - meanA, b[i] - meanB];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}
