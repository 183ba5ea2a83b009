// Reads the history of a room over HTTP, while frames of the room still come over the socket.

import { CutAnswers } from "../clients/js/src/cut.js";
import { ask } from "./api.js";
import { sessionStorageOrNothing } from "./identity.js";

const RETRY = 5000; // ms until a history that could not be read is asked for again

// A message of a history as it is shown: {kind, text, who, meta}. `texts`: those that were written here.
export function lineOf({ role, id, text, name, interrupted, unanswered, cut }, texts, me) {
  const meta = cut ? "Cut off" : interrupted ? "Interrupted" : unanswered ? "Not answered" : "";
  if (role === "agent") return { kind: role, text, meta };
  const isOwn = name ? texts.isMine(id) || name === me.name : texts.has(id, text);
  return isOwn ? { kind: "user", text, meta } : { kind: "other", text, who: name, meta };
}

// Invariant: `#held` is a list from read() until its request is done or dropped, and null otherwise.
export class HistoryReader {
  #on;
  #held = null; // the frames that came since the history was asked for; null if it is not being read
  #reads = 0; // counts the requests: only the result of the newest is used

  #room = "";
  #cut = null; // answers of the room that the server has lost

  // `on` has read(session, frames), with the frames that were held back; failed(frames), if the history can't be had
  // now; then problem(message); and answer(), the last one that is shown, if it is not complete (see cut.js).
  constructor(on) {
    this.#on = on;
  }

  // Holds a frame back, if the history is being read; returns whether it does.
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
    this.#enter(room);
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
    if (session) return this.#on.read({ ...session, history: this.#cut.into(session.history, true) }, frames);
    this.#on.failed(frames);
    if (thisRead !== this.#reads) return;
    this.#on.problem(`What was said before can’t be read just now: ${why}`);
    setTimeout(() => thisRead === this.#reads && this.read(room), RETRY);
  }

  #enter(room) {
    if (room === this.#room) return;
    this.#cut?.close();
    this.#room = room;
    this.#cut = new CutAnswers(sessionStorageOrNothing(), `relay.cut ${location.pathname} ${room}`, () => this.#on.answer());
  }
}
