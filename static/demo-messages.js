// The messages of a room, on the page. Everything is set as text, never as markup.
//
// Texts that were written here and are not in the conversation yet have the class `waiting`. They stand below all
// other messages, in the order in which they were written. Cards of tools stand between the messages.

import { announce } from "./announcer.js";

const NEAR = 100; // pixels from the bottom: the reader sees the newest message

export class Messages {
  #root;

  constructor(root) {
    this.#root = root;
  }

  // Adds a message; returns its node. `kind`: user (written here), other or agent. `who` is the name of an "other".
  addMessage(kind, text, who) {
    const node = bubble(kind, text, who);
    this.add(node);
    return node;
  }

  // Adds anything else.
  add(node) {
    this.#follow(() => this.place(node));
  }

  // Adds a text that was just written here, and shows it.
  addWaiting(text) {
    const node = bubble("user", text);
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
    this.#follow(() => textOf(node).append(text));
  }

  // Replaces the text of an answer. `sources`: what stands under it, if anything.
  complete(node, text, sources) {
    this.#follow(() => {
      textOf(node).textContent = text;
      if (sources) textOf(node).after(sources);
    });
  }

  // A line that is not a message.
  note(text) {
    this.add(element("system", text));
    announce(text);
  }

  // Shows these messages, [{kind, text, who}, …], and then those that wait; returns their nodes.
  replace(lines) {
    const nodes = lines.map(({ kind, text, who }) => bubble(kind, text, who));
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
    root.prepend(...lines.map(({ kind, text, who }) => bubble(kind, text, who)));
    root.scrollTop = root.scrollHeight - below;
  }

  // Removes all but the messages that wait, and the cards of tools that do.
  empty() {
    this.#root.replaceChildren(...this.#root.querySelectorAll(":scope > :is(.waiting, .waiting-card:not(.done))"));
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
  node.querySelector(".meta").textContent = text;
}

export function element(className, text) {
  const node = document.createElement("div");
  node.className = className;
  node.textContent = text;
  return node;
}

function bubble(kind, text, who = "") {
  const node = element(`message ${kind === "other" ? "user other" : kind}`, "");
  const inner = node.appendChild(element("bubble", ""));
  if (who) inner.append(element("who", who));
  inner.append(element("text", text));
  node.append(element("meta", ""));
  return node;
}

function textOf(node) {
  return node.querySelector(".text");
}
