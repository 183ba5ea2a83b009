// Answers that the server has lost. ADK stores an answer when it ends: of one that was being given when the server was
// killed, only those who have read it know. They are put into the histories that come afterwards, below their questions,
// as long as the server has no answer there.

import { whenLeft } from "./page.js";

const MOST = 5; // answers of a conversation
const LONGEST = 32 * 1024; // characters of one

const letters = (/** @type {string} */ text) => text.replace(/\s+/g, "");

/**
 * @typedef {{ question: string, text: string, timestamp?: string }} CutAnswer
 */

// Invariant: what is stored under the key is `#cut`, or an answer more.
export class CutAnswers {
  #answer;
  #endWatch;
  #storage;
  #key;
  /** @type {CutAnswer[]} */
  #cut = [];

  // `storage` keeps them over a reload, under `key`: sessionStorage, or nothing. `answer()` returns the last one that is
  // shown, which the server may lose, or null.
  constructor(storage, key, answer) {
    this.#storage = storage;
    this.#key = key;
    this.#answer = answer;
    this.#endWatch = whenLeft(() => this.#remember());
    try {
      const found = JSON.parse(storage?.getItem(key) ?? "[]");
      if (Array.isArray(found)) this.#cut = found.filter((each) => each?.question && each?.text);
    } catch {
      // what is there is not ours
    }
  }

  close() {
    this.#endWatch();
  }

  #remember() {
    /** @type {CutAnswer | null} */
    const answer = this.#answer();
    if (!answer?.question.trim() || !answer.text.trim()) return;
    const { question, text } = answer;
    const others = this.#cut.filter((each) => !isSame(each, answer));
    this.#keep([...others, { ...answer, question: question.slice(0, LONGEST), text: text.slice(0, LONGEST) }]);
  }

  // The conversation was emptied.
  forget() {
    this.#keep([]);
  }

  // A history with those answers that it does not have. The others are forgotten. `isAnother`: the server has begun a new
  // epoch, and may have lost what it was saying.
  into(lines, isAnother) {
    if (isAnother) this.#remember();
    const whole = [...lines];
    const lost = [];
    for (const each of [...this.#cut].reverse()) {
      const at = whole.findLastIndex(({ role, text }, index) => {
        const isIt = role === "user" && letters(text.slice(0, LONGEST)) === letters(each.question);
        return isIt && whole[index + 1]?.role !== "agent";
      });
      if (at < 0) continue;
      lost.unshift(each);
      const { text, timestamp } = each;
      whole.splice(at + 1, 0, { role: "agent", text, timestamp, interrupted: true, cut: true });
    }
    this.#keep(lost);
    return whole;
  }

  #keep(/** @type {CutAnswer[]} */ cut) {
    if (!cut.length && !this.#cut.length) return;
    this.#cut = cut.slice(-MOST);
    try {
      if (this.#cut.length) this.#storage?.setItem(this.#key, JSON.stringify(this.#cut));
      else this.#storage?.removeItem(this.#key);
    } catch {
      // it is full, or refused: they last as long as the page
    }
  }
}

// Whether one of them is the beginning of the other.
function isSame(a, b) {
  const [one, other] = [letters(a.text), letters(b.text)];
  return letters(a.question) === letters(b.question) && (one.startsWith(other) || other.startsWith(one));
}

// The last answer of the lines of a state, if it was not complete; null: there is none.
export function lastAnswer(/** @type {readonly import("./types.js").Line[]} */ messages) {
  const own = messages.filter(({ beside }) => !beside);
  const at = own.findLastIndex(({ role }) => role === "agent");
  const question = own.slice(0, Math.max(at, 0)).findLast(({ role }) => role === "user");
  if (!question || !(own[at].open || own[at].interrupted)) return null;
  return { question: question.text, text: own[at].text, timestamp: own[at].time };
}
