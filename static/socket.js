// A WebSocket that reconnects: it is opened again after a pause when it was lost, and given up when that cannot help.
// Both pages use it, each with its own dialect on top. A dialect calls greeted() and caughtUp() when the server's first
// frames have come, and sends JSON objects or bytes.
//
// `on.state` is called with each new state, {name, …}:
//   connecting   `again`: after a loss
//   connected    the server has greeted
//   waiting      for the next try, in `delay` ms
//   blocked      the server is there, but no WebSocket gets through; tried again now and then
//   asleep       closed because nobody said anything; the next input opens it
//   ended        it would be refused again, or the agent has failed too often; `reason` says why
// A dialect may add states of its own with become().

import { actionAfter, isFinal, reasonOf } from "./close_codes.js";
import { subprotocols, whenRenewed } from "./token.js";

const FIRST_DELAY = 500; // ms
const MAX_DELAY = 15000;
const HELLO_TIMEOUT = 15000; // ms until the server has greeted, and sent the missed messages
const PROBE_TIMEOUT = 10000; // ms for the answer to a ping
const HEALTH_TIMEOUT = 5000;
const SETTLED = 5000; // ms after which a connection counts as good: the next pause starts small again
const MAX_FAILURES = 6; // of the agent, in a row
const MAX_UNOPENED = 3; // sockets in a row that were never opened: a proxy may refuse WebSockets
const BLOCKED_DELAY = 20000;
const WATCH = 5000; // ms between two checks of how long nothing has come
const LOST = 1006; // the code of a connection that ended without a close frame

// Invariants: there is a socket, or a timer for the next try, or neither while it is asleep, ended or paused.
// `ready` is only true while the socket is open. There is a former socket only until the present one is greeted.
export class ReconnectingSocket {
  #url;
  #protocols;
  #health;
  #whenFailed;
  #on;
  #log;
  #socket = null;
  #former = null; // the socket that is being replaced, until the new one is greeted
  #upgraded = false; // the server has accepted the WebSocket
  #paused = false;
  #attempt = 0; // tries since a connection was good
  #failures = 0; // of the agent, in a row
  #agentFailed = false; // an error on this socket has said so
  #unopened = 0; // sockets in a row that were never opened
  #timer = 0; // for the next try; while there is a socket, for the end of the server's first frames
  #settling = 0;
  #probing = 0;
  #lastReceived = 0;
  ready = false; // the server has greeted: frames can be sent
  silence = 60000; // ms without a frame after which the server is asked whether it is there
  probedAt = 0; // when it was asked last
  state = { name: "connecting" };

  // `url` is a function, because the address may contain the last number seen. `health` is an address that answers over
  // plain HTTP if the server takes connections; without it the state is never "blocked". `whenFailed` is the state after too many
  // failures of the agent: "ended" or "asleep". `log(direction, data)` gets all frames.
  // `on` has state(state), data(data) and gone(lost): frames that were sent may not have arrived; `lost` is false if the
  // socket is only being replaced.
  constructor({ url, protocols = [], health = null, whenFailed = "ended", on, log = () => {} }) {
    this.#url = url;
    this.#protocols = protocols;
    this.#health = health;
    this.#whenFailed = whenFailed;
    this.#on = on;
    this.#log = log;
    setInterval(() => this.#watch(), WATCH);
    whenRenewed((token) => this.send({ type: "token", token }) || this.retry());
    addEventListener("online", () => (this.ready ? this.probe() : this.hurry()));
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  // Opens a socket, or replaces the present one, which stays open until the new one is greeted: a conversation without
  // any socket might be ended by the server.
  open() {
    if (this.#paused) return;
    if (this.ready) {
      this.#former = this.#socket;
      ignore(this.#former);
    } else if (this.#socket) abandon(this.#socket);
    this.#detach(false);
    if (this.state.name !== "blocked") this.become({ name: "connecting", again: this.#attempt > 0 });

    const socket = new WebSocket(this.#url(), subprotocols(this.#protocols));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#upgraded = true;
      this.#unopened = 0;
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(LOST), HELLO_TIMEOUT);
  }

  // The server's greeting has come.
  greeted() {
    this.ready = true;
    this.#settling = setTimeout(() => (this.#attempt = 0), SETTLED);
    this.#closeFormer();
    this.become({ name: "connected" });
  }

  // All frames that the server sends at the beginning have come.
  caughtUp() {
    clearTimeout(this.#timer);
  }

  // Sends a frame, if the server has greeted; returns whether it was sent.
  send(data) {
    if (!this.ready) return false;
    const frame = data instanceof ArrayBuffer ? data : JSON.stringify(data);
    this.#log("[CLIENT TO AGENT]", data.type === "token" ? "a new token" : frame);
    this.#socket.send(frame);
    return true;
  }

  // Bytes that wait for the network.
  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  // No socket is opened until resume().
  pause() {
    this.#paused = true;
    clearTimeout(this.#timer);
    if (this.#socket) abandon(this.#socket);
    this.#socket = null;
  }

  resume() {
    if (!this.#paused) return;
    this.#paused = false;
    this.open();
  }

  // Opens a socket if it is asleep: there is input.
  wake() {
    if (this.state.name === "asleep") this.open();
  }

  // Tries now, because a try may succeed: the network is back, or the user has returned to the page.
  hurry() {
    if (["waiting", "blocked"].includes(this.state.name)) {
      if (!this.#socket) this.open();
    } else if (this.ready && this.#silentFor() > this.silence / 2) this.probe();
  }

  // Another try, because the user asks for it.
  retry() {
    this.#attempt = this.#failures = 0;
    this.open();
  }

  // The agent works: failures in a row are counted from zero again.
  agentWorks() {
    this.#failures = 0;
  }

  // An error frame has come. Returns whether it is dealt with: the new token is for another socket.
  heardError(code) {
    if (isFinal(code)) this.#agentFailed = true;
    if (code !== "bad_token") return false;
    this.open();
    return true;
  }

  // The agent would fail in the same way again: its next failure ends the tries.
  agentFailsForGood() {
    this.#failures = MAX_FAILURES;
  }

  // Pings the server. A connection can die without a close frame (a laptop that slept, a network that changed). Any
  // frame that comes counts as the answer.
  probe() {
    if (this.#probing) return;
    this.probedAt = performance.now();
    this.send({ type: "ping" });
    this.#probing = setTimeout(() => this.#lost(LOST), PROBE_TIMEOUT);
  }

  become(state) {
    this.state = state;
    this.#on.state(state);
  }

  #receive(data) {
    this.#log("[AGENT TO CLIENT]", data);
    this.#lastReceived = performance.now();
    clearTimeout(this.#probing);
    this.#probing = 0;
    this.#on.data(data);
  }

  #watch() {
    if (this.ready && this.#silentFor() > this.silence) this.probe();
  }

  #silentFor() {
    return performance.now() - this.#lastReceived;
  }

  // ---- how it ends

  #lost(code, reason = "") {
    const upgraded = this.#upgraded;
    const agentFailed = this.#agentFailed;
    if (this.#socket) drop(this.#socket);
    this.#socket = null;
    this.#detach(true);

    switch (actionAfter(code)) {
      case "sleep":
        return this.#end({ name: "asleep" });
      case "end":
        return this.#end({ name: "ended", reason: reasonOf(code, reason) });
      case "count":
        if (!agentFailed || ++this.#failures < MAX_FAILURES) break;
        return this.#end({ name: this.#whenFailed, reason: reason || "The agent cannot be reached." });
    }
    // Exponential backoff with full jitter: a random pause up to a bound that doubles. Otherwise all pages would come
    // back at the same moment after a restart of the server.
    const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempt++);
    this.#timer = setTimeout(() => this.open(), delay);
    if (this.state.name !== "blocked") this.become({ name: "waiting", delay });
    if (!upgraded && this.#health && ++this.#unopened >= MAX_UNOPENED) this.#findCause(delay);
    else if (this.state.name === "blocked") this.become({ name: "waiting", delay });
  }

  // Finds out whether the server is gone, or whether only WebSockets do not get through.
  async #findCause(delay) {
    const options = { cache: "no-store", signal: AbortSignal.timeout(HEALTH_TIMEOUT) };
    const isServed = await fetch(this.#health, options).then(({ ok }) => ok, () => false);
    // While this waited, the next try has begun, or tries have been stopped.
    if (this.#socket || this.#paused || !["waiting", "blocked"].includes(this.state.name)) return;
    if (isServed) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.open(), BLOCKED_DELAY);
      if (this.state.name !== "blocked") this.become({ name: "blocked" });
    } else if (this.state.name === "blocked") this.become({ name: "waiting", delay });
  }

  #end(state) {
    this.#closeFormer();
    this.become(state);
  }

  #closeFormer() {
    if (this.#former) abandon(this.#former);
    this.#former = null;
  }

  // Resets the state of one socket.
  #detach(lost) {
    this.ready = this.#upgraded = this.#agentFailed = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#settling);
    clearTimeout(this.#probing);
    this.#probing = 0;
    this.#on.gone(lost);
  }
}

function ignore(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
}

// Closes without waiting for an answer: a dead peer gives none, and onclose would come only after a long timeout.
function drop(socket) {
  ignore(socket);
  socket.close(1000);
}

// The same for a socket that is not wanted any more. If it is still connecting, it is closed when it opens: before
// that, the browser would report an error in the console. (drop() closes a lost socket at once, because browsers open
// the WebSockets to a server one after the other, and the next one would wait for it.)
function abandon(socket) {
  ignore(socket);
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close(1000);
  else socket.close(1000);
}
