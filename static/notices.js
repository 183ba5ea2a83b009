// The lines between the bubbles: what has happened to the conversation, and what was lost of it.

import { element } from "./elements.js";

export class Notices {
  #place;
  #last;
  #announce;
  #notice = null; // the newest one: {item, kind, text, count, total}

  // `place(item)` puts a line into the conversation, and `last()` is its last item.
  constructor({ place, last, announce }) {
    this.#place = place;
    this.#last = last;
    this.#announce = announce;
  }

  // The same line again is counted, not repeated. `kind` is its class.
  add(kind, text) {
    const same = this.#ifLast(kind);
    if (same?.text === text) {
      same.item.querySelector(".count").textContent = ` (${++same.count} times)`;
      return;
    }
    const item = element("p", `system ${kind}`, text);
    item.append(element("span", "count"));
    this.#notice = { item, kind, text, count: 1 };
    this.#place(item);
    this.#announce(text);
  }

  // Sound that was dropped. Losses that follow each other add up in one line.
  addLoss(direction, milliseconds) {
    const kind = `dropped-${direction}`;
    const before = this.#ifLast(kind);
    const total = milliseconds + (before?.total ?? 0);
    const what =
      direction === "up"
        ? "what you said was lost on the way."
        : "the agent’s voice was lost: the connection is too slow.";
    const item = before?.item ?? element("p", "system");
    item.textContent = `${(total / 1000).toFixed(1)} s of ${what}`;
    this.#notice = { item, kind, total };
    if (!before) this.#place(item);
  }

  // The newest line, if it is of this kind and nothing has followed it.
  #ifLast(kind) {
    const notice = this.#notice;
    return notice?.kind === kind && notice.item === this.#last() ? notice : null;
  }
}
