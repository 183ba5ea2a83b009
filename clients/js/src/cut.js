// Answers that the server has lost. ADK stores an answer when it ends: of one that was being given when the server was
// killed, only those who have read it know. They are put into the histories that come afterwards, below their questions,
// as long as the server has no answer there.

import { whenLeft } from "./page.js";

const MOST = 5; // answers of a conversation
const LONGEST = 32 * 1024; // characters of one

const letters = (/** @type {string} */ text) => text.replace(/\s+/g, "");

/**
 * @typedef {{ question: string, nth: number, text: string, timestamp?: string }} CutAnswer nth: the question was asked so
 *   often, from 1
 */

// Invariant: what is stored under the key is `#cut`, and the answer that was open when the page was left last.
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
    this.#endWatch = whenLeft(() => this.#store(this.#withLast()));
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

  // The conversation was emptied.
  forget() {
    this.#keep([]);
  }

  // A history with those answers that it does not have. The others are forgotten. `isAnother`: the server has begun a new
  // epoch, and may have lost what it was saying.
  into(lines, isAnother) {
    const whole = [...lines];
    const lost = [];
    for (const each of (isAnother ? this.#withLast() : [...this.#cut]).reverse()) {
      const asked = [...whole.keys()].filter((index) => isAsked(whole[index], each.question));
      const at = asked[Math.min(each.nth, asked.length) - 1];
      if (at === undefined || whole[at + 1]?.role === "agent") continue;
      lost.unshift(each);
      const { text, timestamp } = each;
      whole.splice(at + 1, 0, { role: "agent", text, timestamp, interrupted: true, cut: true });
    }
    this.#keep(lost);
    return whole;
  }

  // With what has been said so far of the last answer, in case that the server has lost it when it is back.
  #withLast() {
    /** @type {CutAnswer | null} */
    const answer = this.#answer();
    if (!answer?.question.trim() || !answer.text.trim()) return [...this.#cut];
    const last = { ...answer, text: answer.text.slice(0, LONGEST) };
    const others = this.#cut.filter(({ question, nth }) => question !== last.question || nth !== last.nth);
    return [...others, last].slice(-MOST);
  }

  #keep(/** @type {CutAnswer[]} */ cut) {
    this.#cut = cut;
    this.#store(cut);
  }

  #store(/** @type {CutAnswer[]} */ cut) {
    try {
      if (cut.length) this.#storage?.setItem(this.#key, JSON.stringify(cut));
      else this.#storage?.removeItem(this.#key);
    } catch {
      // it is full, or refused: they last as long as the page
    }
  }
}

const isAsked = ({ role, text }, question) => role === "user" && letters(text) === letters(question);

// The last answer of the lines of a state, if it was not complete; null: there is none.
export function lastAnswer(/** @type {readonly import("./types.js").Line[]} */ messages) {
  const own = messages.filter(({ beside }) => !beside);
  const at = own.findLastIndex(({ role }) => role === "agent");
  if (at < 0 || !(own[at].open || own[at].interrupted)) return null;
  const before = own.slice(0, at);
  const question = before.findLast(({ role }) => role === "user")?.text ?? "";
  const nth = before.filter((each) => isAsked(each, question)).length;
  return { question, nth, text: own[at].text, timestamp: own[at].time };
}
