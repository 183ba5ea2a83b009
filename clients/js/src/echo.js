// Whether the microphone hears what the loudspeaker plays: then echo cancellation does not work, whatever the browser says.
//
// Both levels are measured on the audio thread, at the same moments (see recorder.worklet.js). What is played comes back
// later, and quieter, but it rises and falls in the same way. A user who speaks, and noise, do not.

// In levels, of which there are 25 a second:
const MAX_DELAY = 15; // until sound comes back: through Bluetooth it may take half a second
const SETTLING = 25; // those that are not looked at: a canceller first learns how the room sounds
const ENOUGH = 50; // of played sound that make a judgement
const ALL = 250; // what has not come back after so many does not come back
const WINDOW = 100; // that a judgement looks at: a device that stutters has another delay afterwards
const STEP = 5; // between two judgements

const CERTAIN = 3; // judgements in a row that must agree
const SAME = 0.75; // correlation from which both levels rise and fall in the same way
const FLOOR = -55; // decibels of full scale: what is quieter disturbs nobody
const PLAYED = -45; // decibels of sound that can be heard

export class EchoMeter {
  /** @type {"unknown" | "echo" | "none"} */
  verdict = "unknown";
  #played = []; // decibels
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
    const loud = decibels(played);
    const isAudible = loud > PLAYED;
    this.#rest = isAudible ? MAX_DELAY : this.#rest - 1;
    if (this.#rest < 0) return false; // between two answers there is nothing to be heard
    if (isAudible) this.#audible++;
    if (this.#audible < SETTLING) return false;
    this.#played.push(loud);
    this.#heard.push(decibels(heard));
    if (this.#audible < SETTLING + ENOUGH || this.#played.length % STEP) return false;
    const isSame = echoOf(this.#played.slice(-WINDOW), this.#heard.slice(-WINDOW)) > SAME;
    this.#confirmed = isSame ? this.#confirmed + 1 : 0;
    if (this.#confirmed === CERTAIN) this.verdict = "echo";
    else if (this.#audible > SETTLING + ALL) this.verdict = "none";
    return this.verdict !== "unknown";
  }
}

// How much two series of levels are alike, -1 to 1, if the second one is late by the delay at which they are most alike.
function echoOf(played, heard) {
  let best = -1;
  for (let delay = 0; delay <= MAX_DELAY && delay < played.length / 2; delay++) {
    best = Math.max(best, pearson(played.slice(0, played.length - delay), heard.slice(delay)));
  }
  return best;
}

// The loudness of a level; what is too quiet to disturb is all the same.
const decibels = (level) => Math.max(FLOOR, 20 * Math.log10(level + 1e-9));

// The correlation of two series: https://en.wikipedia.org/wiki/Pearson_correlation_coefficient
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
