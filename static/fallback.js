// Writing without a WebSocket, where none can be had: each text is a request of its own, and what comes of it is read
// while it comes.
//
// Answers are told in the words of the socket's frames, so that the page need not know where they come from. The
// conversation is another one than the socket's: it belongs to the server's guest.

const SILENCE = 60000; // ms: a server that lives says something at least every ping_interval

export class Fallback {
  #url;
  #session;
  #on;
  #waiting = []; // texts: one is answered after the other
  #request = null; // an AbortController

  // `on` has sent(id), for a text whose turn it is; refused(id), where nothing came of it; message(frame); and idle(),
  // when there is nothing more to do.
  constructor({ url, session, on }) {
    this.#url = url;
    this.#session = session;
    this.#on = on;
  }

  get busy() {
    return this.#request !== null;
  }

  send(id, text) {
    this.#waiting.push({ id, text });
    if (!this.busy) this.#work();
  }

  // Enough of this answer.
  stop() {
    this.#request?.abort();
  }

  async #work() {
    while (this.#waiting.length) {
      const { id, text } = this.#waiting.shift();
      const request = (this.#request = new AbortController());
      let begun = false;
      const tell = (frame) => {
        begun = true;
        this.#on.message(frame);
      };
      this.#on.sent(id);
      try {
        await this.#ask(text, request, tell);
      } catch (error) {
        if (begun) tell({ interrupted: true });
        else this.#on.refused(id);
        // A browser's own words for a request that failed are no help to anybody.
        const message = error instanceof Refused ? error.message : "The server could not be reached. Please try again.";
        if (error.name !== "AbortError") tell({ type: "error", message });
      }
    }
    this.#request = null;
    this.#on.idle();
  }

  async #ask(text, request, tell) {
    let overdue = 0;
    const wait = () => {
      clearTimeout(overdue);
      overdue = setTimeout(() => request.abort(new Refused("The server has fallen silent. Please try again.")), SILENCE);
    };
    try {
      wait();
      await this.#answer(text, request.signal, tell, wait);
    } finally {
      clearTimeout(overdue);
    }
  }

  async #answer(text, signal, tell, alive) {
    const response = await fetch(this.#url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify({ session_id: this.#session, message: text }),
      signal,
    });
    if (!response.ok) throw new Refused(await response.json().then(({ detail }) => detail, () => response.statusText));
    let interrupted = false;
    for await (const event of events(response.body, alive)) {
      switch (event.type) {
        case "tool_start":
        case "tool_complete":
          tell(event);
          break;
        case "response":
          interrupted = Boolean(event.interrupted);
          tell({ mime_type: "text/plain", data: event.content });
          break;
        case "done":
          return tell(interrupted ? { interrupted } : { turn_complete: true });
        case "error":
          throw new Refused(event.message);
      }
    }
    throw new Refused("The answer broke off. Please try again.");
  }
}

class Refused extends Error {}

// The events of a text/event-stream whose data is JSON with a `type`; `alive` is called when anything comes.
async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
    }
  }
}
