// The chat dialect of one socket: JSON frames in and out, and the time of a ping to the server and back.

import { ReconnectingSocket } from "../clients/js/src/socket.js";
import { here } from "./api.js";
import { currentToken, whenRenewed } from "./token.js";

const PING_EVERY = 15000; // ms

export class Chat {
  #socket;
  #pinging = 0;

  // `url()` is the address of the WebSocket. `on` has state(state), see socket.js; frame(frame); and trip(ms), the time of a ping to the server and back.
  constructor(url, on) {
    this.#socket = new ReconnectingSocket({
      url,
      token: currentToken,
      health: here("health"),
      whenFailed: "asleep",
      on: {
        state: (state) => on.state(state),
        data: (data) => this.#receive(JSON.parse(data), on),
        gone: () => clearInterval(this.#pinging),
      },
    });
    whenRenewed((token) => this.#socket.renew(token));
  }

  get ready() {
    return this.#socket.ready;
  }

  open() {
    this.#socket.open();
  }

  // Opens another socket, if there is one.
  renew() {
    if (this.ready) this.open();
  }

  // Opens the socket if it is asleep: there is input.
  wake() {
    this.#socket.wake();
  }

  // Ends the pause between two tries.
  hurry() {
    this.#socket.hurry();
  }

  send(type, fields = {}) {
    return this.#socket.send({ type, ...fields });
  }

  #receive(frame, on) {
    switch (frame.type) {
      case "connected": // always the first frame
        this.#socket.greeted();
        this.#socket.caughtUp();
        this.#socket.send({ type: "pong" }); // this page answers pings: the server may take it for dead if it does not
        this.#socket.probe();
        this.#pinging = setInterval(() => this.#socket.probe(), PING_EVERY);
        break;
      case "ping":
        this.#socket.send({ type: "pong" });
        break;
      case "pong":
        on.trip(performance.now() - this.#socket.probedAt);
        break;
      case "chunk":
        this.#socket.agentWorks();
        break;
      case "error":
        if (this.#socket.heardError(frame.code)) return;
        break;
    }
    on.frame(frame);
  }
}
