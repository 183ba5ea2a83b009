// The text of an answer on the page: Markdown, which is drawn as it grows.

import { keepSource, mark, sourceOf } from "./bubbles.js";
import { element } from "./elements.js";
import { Markdown } from "./markdown.js";

const SHARE = 4; // drawing takes at most a fifth of the time

// Invariant: what is shown is the whole source, or a frame is asked for in which it will be.
export class AnswerText {
  element = element("div", "text markdown");
  #source = "";
  #markdown;
  #around;
  #frame = 0;
  #next = 0; // not drawn before that time

  // `around(draw)` has to call `draw()`, which shows more. `level`: see markdown.js.
  constructor({ level = 1, around = (draw) => draw() } = {}) {
    this.#markdown = new Markdown(this.element, level);
    this.#around = around;
    keepSource(this.element, () => this.#source);
  }

  get source() {
    return this.#source;
  }

  // There is more of it. It is drawn at most once a frame, the beginning at once.
  append(text) {
    const isFirst = !this.#source;
    this.#source += text.replaceAll("\r", "");
    if (isFirst) this.#draw(true);
    else this.#drawSoon();
  }

  // It is complete: this is all of it.
  finish(source = this.#source) {
    cancelAnimationFrame(this.#frame);
    this.#source = source.replaceAll("\r", "");
    this.#draw(false);
  }

  #drawSoon() {
    this.#frame ||= requestAnimationFrame((now) => {
      this.#frame = 0;
      if (now < this.#next) this.#drawSoon();
      else this.#draw(true);
    });
  }

  #draw(isOpen) {
    const begun = performance.now();
    this.#around(() => this.#markdown.draw(this.#source, isOpen));
    const ended = performance.now();
    this.#next = ended + SHARE * (ended - begun);
  }
}

// The node of an answer that is complete.
export function answerText(source, level) {
  const text = new AnswerText({ level });
  text.finish(source);
  return text.element;
}

// Leaves the beginning of an answer that has ended, which stands in several nodes if tools are between its words. If
// nothing is left, not even a tool, the item is removed.
export function shorten(item, text) {
  if (!text && !item.querySelector(".tool")) return item.remove();
  let left = text;
  for (const node of item.querySelectorAll(".text")) {
    const source = sourceOf(node);
    if (left.length < source.length) {
      if (left.trim()) node.replaceWith(answerText(left));
      else node.remove();
    }
    left = left.slice(source.length);
  }
  mark(item, "Interrupted", "interrupted");
}
