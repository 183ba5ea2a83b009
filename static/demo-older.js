// Messages from before those that are shown: they are read when the reader scrolls up to the first one.

import { ask } from "./api.js";

const NEAR = 200; // pixels from the top
const RETRY = 5000; // ms until messages that could not be read are asked for again

// Invariant: `#first` is the number of the first message that is shown; 1: there are none before it.
export class OlderReader {
  #root;
  #show;
  #room = "";
  #first = 1;
  #reads = 0; // counts what was begun: only an answer to the newest request is used
  #isReading = false;

  // `show(lines)` shows messages above all others.
  constructor(root, show) {
    this.#root = root;
    this.#show = show;
    root.addEventListener("scroll", () => this.#look(), { passive: true });
  }

  // Another history is shown; `first` is the number of its first message.
  begin(room, first) {
    this.#reads++;
    this.#isReading = false;
    this.#room = room;
    this.#first = first;
    this.#look();
  }

  async #look() {
    if (this.#first <= 1 || this.#isReading || this.#root.scrollTop > NEAR) return;
    this.#isReading = true;
    const thisRead = ++this.#reads;
    let session = null;
    try {
      session = await ask("GET", `sessions/${this.#room}?before=${this.#first}`);
    } catch {
      setTimeout(() => this.#goOn(thisRead), RETRY);
      return;
    }
    if (thisRead !== this.#reads) return;
    this.#first = session.history.length ? session.first : 1;
    this.#show(session.history);
    this.#goOn(thisRead);
  }

  #goOn(thisRead) {
    if (thisRead !== this.#reads) return;
    this.#isReading = false;
    this.#look();
  }
}
