// Who is typing in a conversation: tells the others of this page, and remembers what they tell.

const PAUSE = 3000; // ms without a key: not typing any more
const FORGET = 60000; // ms after which somebody who was typing, and was not heard of since, is not

export class TypingSignal {
  #send;
  #isTold = false; // the others know that somebody is typing here
  #pause = 0;

  // `send(type)` returns whether it was sent.
  constructor(send) {
    this.#send = send;
  }

  // The text in the box has changed.
  changed(text) {
    clearTimeout(this.#pause);
    if (!text.trim()) return this.stopped();
    this.#pause = setTimeout(() => this.stopped(), PAUSE);
    this.#isTold ||= this.#send("typing_start");
  }

  stopped() {
    clearTimeout(this.#pause);
    if (this.#isTold) this.#send("typing_stop");
    this.#isTold = false;
  }

  // There is a new socket, on which nobody was told anything.
  reset() {
    this.#isTold = false;
  }
}

export class Typists {
  #show;
  #timers = new Map(); // connection id → the timer that forgets it

  // `show(ids)` is called with the connections of those who are typing, whenever that has changed.
  constructor(show) {
    this.#show = show;
  }

  set(id, isTyping) {
    clearTimeout(this.#timers.get(id));
    if (isTyping) this.#timers.set(id, setTimeout(() => this.set(id, false), FORGET));
    else if (!this.#timers.delete(id)) return;
    this.#show([...this.#timers.keys()]);
  }

  clear() {
    for (const id of [...this.#timers.keys()]) this.set(id, false);
  }
}
