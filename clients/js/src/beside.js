// The separate conversation over HTTP, to which texts go while no WebSocket gets through (see fallback.js).

import { Fallback } from "./fallback.js";

// Invariant: while a text is being answered, the connection is paused: a socket would bring its own conversation into the
// middle of that answer.
export class Beside {
  #connection;
  #fallback;
  #emit;
  #isUsed = false; // since texts go here, one has

  // `url`, `token`, `session` and `fetch` are the fallback's. `emit(message)` tells what becomes of texts; `received(frame)`
  // gets the answers, and `notify()` is called when all texts are answered.
  constructor(connection, { url, token, session, fetch, emit, received, notify }) {
    this.#connection = connection;
    this.#emit = emit;
    this.#fallback = new Fallback({
      url,
      token,
      session,
      fetch,
      on: {
        sent: (id) => emit({ type: "sent", id }),
        refused: (id) => emit({ type: "refused", id }),
        message: received,
        idle: () => {
          connection.resume();
          notify();
        },
      },
    });
  }

  get busy() {
    return this.#fallback.busy;
  }

  // Texts go here from now on, or do not any more. Those that belong to no other conversation go here at once.
  change(active) {
    const used = this.#isUsed;
    this.#isUsed = false;
    this.#emit({ type: "beside", active, used });
    if (!active) return;
    for (const { id, words, stateDelta, pictures } of this.#connection.takeHomeless()) {
      this.send(id, words, stateDelta, pictures);
    }
  }

  send(id, text, stateDelta, pictures) {
    this.#isUsed = true;
    if (pictures.length) this.#emit({ type: "unpictured", id });
    this.#connection.pause();
    this.#fallback.send(id, text, stateDelta);
  }

  takeBack(id) {
    return this.#fallback.takeBack(id);
  }

  stop() {
    this.#fallback.stop();
  }

  close() {
    this.#fallback.close();
  }
}
