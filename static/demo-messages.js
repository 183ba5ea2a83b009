// The messages of a room, on the page. Everything is set as text, never as markup; answers are Markdown (see answer.js).
//
// Texts that were written here and are not in the conversation yet have the class `waiting`. They stand below all
// other messages, in the order in which they were written. Cards of tools stand between the messages.

import { answerActions } from "./actions.js";
import { announce } from "./announcer.js";
import { AnswerText } from "./answer.js";
import { element } from "./elements.js";

const NEAR = 100; // pixels from the bottom: the reader sees the newest message
const LEVEL = 2; // of the heading that the messages stand under

export class Messages {
  #root;
  #answers = new WeakMap(); // node of an answer → its AnswerText

  constructor(root) {
    this.#root = root;
  }

  // Adds a message; returns its node. `kind`: user (written here), other or agent. `who` is the name of an "other".
  addMessage(kind, text, who) {
    const node = this.#bubble(kind, text, who);
    this.add(node);
    return node;
  }

  // Adds anything else.
  add(node) {
    this.#follow(() => this.place(node));
  }

  // Adds a text that was just written here, and shows it.
  addWaiting(text) {
    const node = this.#bubble("user", text);
    this.wait(node);
    this.#root.scrollTop = this.#root.scrollHeight;
    return node;
  }

  // Moves a message to the end of those that wait.
  wait(node) {
    node.classList.add("waiting");
    this.#root.append(node);
  }

  // Moves a message to the end of those that do not wait.
  place(node) {
    node.classList.remove("waiting");
    this.#root.insertBefore(node, this.#root.querySelector(":scope > .waiting"));
  }

  append(node, text) {
    this.#answers.get(node).append(text);
  }

  // Replaces the text of an answer. `sources`: what stands under it, if anything.
  complete(node, text, sources) {
    const answer = this.#answers.get(node);
    answer.finish(text);
    if (sources) this.#follow(() => answer.element.after(sources));
  }

  // A line that is not a message.
  note(text) {
    this.add(element("div", "system", text));
    announce(text);
  }

  // An answer, and the text before it, which was asked for the `nth` time: {question, nth, text}.
  exchange(node) {
    const all = [...this.#root.children];
    const asked = all.slice(0, all.indexOf(node)).filter((each) => each.matches(".user"));
    const texts = asked.map((each) => each.querySelector(".text").textContent);
    const question = texts.at(-1) ?? "";
    return { question, nth: texts.filter((text) => text === question).length, text: this.#answers.get(node).source };
  }

  // Shows these messages, [{kind, text, who, meta}, …], and then those that wait; returns their nodes.
  replace(lines) {
    const nodes = lines.map((line) => this.#line(line));
    const all = new DocumentFragment(); // in one piece: otherwise the page would be laid out once for each message
    all.append(...nodes);
    this.#follow(() => {
      this.empty();
      this.#root.prepend(all);
    });
    return nodes;
  }

  // Shows messages above all others. What the reader sees stays where it is.
  prepend(lines) {
    const root = this.#root;
    const below = root.scrollHeight - root.scrollTop;
    root.prepend(...lines.map((line) => this.#line(line)));
    root.scrollTop = root.scrollHeight - below;
  }

  // Removes all but the messages that wait, and the cards of tools that do.
  empty() {
    this.#root.replaceChildren(...this.#root.querySelectorAll(":scope > :is(.waiting, .waiting-card:not(.done))"));
  }

  #line({ kind, text, who, meta }) {
    const node = this.#bubble(kind, text, who);
    setMeta(node, meta);
    return node;
  }

  #bubble(kind, text, who = "") {
    const node = element("div", `message ${kind === "other" ? "user other" : kind}`);
    const inner = node.appendChild(element("div", "bubble"));
    if (who) inner.append(element("div", "who", who));
    if (kind === "agent") {
      const answer = new AnswerText({ level: LEVEL, around: (draw) => this.#follow(draw) });
      this.#answers.set(node, answer);
      if (text) answer.finish(text);
      inner.append(answer.element);
    } else inner.append(element("div", "text", text));
    const meta = node.appendChild(element("div", "meta"));
    meta.append(element("div", "mark"));
    if (kind === "agent") meta.append(answerActions(() => this.#answers.get(node).source));
    return node;
  }

  // Makes a change. If the newest message was visible before, it is visible afterwards.
  #follow(change) {
    const root = this.#root;
    const atEnd = root.scrollHeight - root.scrollTop - root.clientHeight < NEAR;
    change();
    if (atEnd) root.scrollTop = root.scrollHeight;
  }
}

// The small line below a message.
export function setMeta(node, text) {
  node.querySelector(".meta .mark").textContent = text;
}
