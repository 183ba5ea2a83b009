// Reads what was said in a room over HTTP, while the room's frames go on coming over the socket.

import { ask } from "./api.js";

const RETRY = 5000; // ms until a history that could not be read is asked for again

// Invariant: `#held` is a list from read() until its request is done or dropped, and null otherwise.
export class HistoryReader {
  #on;
  #held = null; // the frames that came since the history was asked for; null if it is not being read
  #reads = 0; // the result of any but the newest is dropped

  // `on` has read(session, frames), with the frames that were held back; failed(frames), if the history can't be had
  // now; and then problem(message).
  constructor(on) {
    this.#on = on;
  }

  // Holds a frame back, if the history is being read; returns whether.
  hold(frame) {
    this.#held?.push(frame);
    return this.#held !== null;
  }

  // Forgets what is being read: the socket is lost, or the page is in another room.
  drop() {
    this.#held = null;
    this.#reads++;
  }

  async read(room) {
    this.drop();
    const thisRead = this.#reads;
    this.#held = [];
    let session = null;
    let why = "";
    try {
      session = await ask("GET", `sessions/${room}`);
    } catch (error) {
      why = error.message;
    }
    if (thisRead !== this.#reads) return;
    const frames = this.#held;
    this.#held = null;
    if (session) return this.#on.read(session, frames);
    this.#on.failed(frames);
    if (thisRead !== this.#reads) return;
    this.#on.problem(`What was said before can’t be read just now: ${why}`);
    setTimeout(() => thisRead === this.#reads && this.read(room), RETRY);
  }
}
