// Used when no WebSocket gets through: each text is an HTTP request, and its answer is read while it streams.
//
// Answers are reported as frames of the live dialect, so that nobody need know where they come from. The conversation is
// not the socket's: without a token it belongs to the server's guest.

import { authorization } from "./token.js";

const SILENCE = 60000; // ms without anything from the server; it sends something at least every ping_interval

export class Fallback {
  #url;
  #token;
  #session;
  #fetch;
  #on;
  /** @type {{ id: string, text: string, stateDelta?: import("./types.js").StateDelta }[]} */
  #waiting = []; // each is sent when the one before it is answered
  /** @type {AbortController | null} */
  #request = null;

  // `token` is a function. `session` is the id of the conversation.
  // `on` has sent(id); refused(id), if there was no answer at all; message(frame); and idle(), when all texts are done.
  constructor({ url, token, session, fetch = globalThis.fetch, on }) {
    this.#url = url;
    this.#token = token;
    this.#session = session;
    this.#fetch = fetch;
    this.#on = on;
  }

  get busy() {
    return this.#request !== null;
  }

  send(id, text, stateDelta) {
    this.#waiting.push({ id, text, stateDelta });
    if (!this.busy) this.#work();
  }

  // Takes back a text that was not sent yet; returns whether there was one.
  takeBack(id) {
    const at = this.#waiting.findIndex((text) => text.id === id);
    if (at >= 0) this.#waiting.splice(at, 1);
    return at >= 0;
  }

  // Gives up all texts.
  close() {
    this.#waiting = [];
    this.stop();
  }

  // Stops the answer that is being given.
  stop() {
    this.#request?.abort();
  }

  async #work() {
    while (this.#waiting.length) {
      const [{ id, text, stateDelta }] = this.#waiting.splice(0, 1);
      const request = (this.#request = new AbortController());
      let begun = false;
      const report = (frame) => {
        begun = true;
        this.#on.message(frame);
      };
      this.#on.sent(id);
      try {
        await this.#ask({ message: text, state_delta: stateDelta }, request, report);
      } catch (error) {
        if (begun) report({ interrupted: true });
        else this.#on.refused(id);
        // A browser's own message about a failed request does not help the user.
        const message = error instanceof Refused ? error.message : "The server could not be reached. Please try again.";
        if (error.name !== "AbortError") report({ type: "error", message });
      }
    }
    this.#request = null;
    this.#on.idle();
  }

  async #ask(message, request, report) {
    let overdue = 0;
    const wait = () => {
      clearTimeout(overdue);
      const reason = new Refused("The server has stopped answering. Please try again.");
      overdue = setTimeout(() => request.abort(reason), SILENCE);
    };
    try {
      wait();
      await this.#readAnswer(message, request.signal, report, wait);
    } finally {
      clearTimeout(overdue);
    }
  }

  async #readAnswer(message, signal, report, alive) {
    let interrupted = false;
    const request = { session_id: this.#session, ...message };
    for await (const event of askOverHttp(this.#url, request, { token: this.#token(), fetch: this.#fetch, signal, alive })) {
      switch (event.type) {
        case "tool_start":
        case "tool_complete":
          report(event);
          break;
        case "response":
          interrupted = Boolean(event.interrupted);
          report({ mime_type: "text/plain", data: event.content });
          break;
        case "done":
          return report(interrupted ? { interrupted } : { turn_complete: true });
        case "error":
          throw new Refused(event.message);
      }
    }
    throw new Refused("The answer was cut off. Please try again.");
  }
}

// The events of the turn dialect, as POST /api/v1/chat streams them. Throws a Refused if the server refuses the request.
export async function* askOverHttp(url, request, { token, fetch, signal, alive = () => {} }) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream", ...authorization(token) },
    body: JSON.stringify(request),
    signal,
  });
  if (!response.ok) throw new Refused(await response.json().then(({ detail }) => detail, () => response.statusText));
  yield* events(response.body, alive);
}

// An error whose message can be shown.
export class Refused extends Error {}

// The events of a text/event-stream whose data is JSON with a `type`; `alive` is called when anything comes.
async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
    }
  }
}
