// A WebSocket that reconnects: it is opened again after a pause when it was lost, and given up when that cannot help.
// A dialect is on top of it. It calls greeted() and caughtUp() when the server's first frames have come, and sends JSON
// objects or bytes.
//
// `on.state` is called with each new state, {name, …}:
//   connecting   `again`: after a loss
//   connected    the server has greeted
//   waiting      for the next try, in `delay` ms
//   blocked      the server is there, but no WebSocket gets through; tried again now and then
//   asleep       closed because nobody said anything, or the page was left; the next input opens it
//   ended        it would be refused again, or the agent has failed too often; `reason` says why
//   closed       by close()
// A dialect may add states of its own with become().

import { actionAfter, isFinal, reasonOf } from "./close_codes.js";
import { watchPage } from "./page.js";
import { subprotocols } from "./token.js";

const FIRST_DELAY = 500; // ms
const MAX_DELAY = 15000;
const MAX_ASK_DELAY = 3000; // ms between two questions whether the server is there: they cost little
const HELLO_TIMEOUT = 15000; // ms until the server has greeted, and sent the missed messages
const PROBE_TIMEOUT = 10000; // ms for the answer to a ping
const HEALTH_TIMEOUT = 5000;
const SETTLED = 5000; // ms after which a connection counts as good: the next pause starts small again
const MAX_FAILURES = 6; // of the agent, in a row
const MAX_UNOPENED = 3; // sockets in a row that were never opened: a proxy may refuse WebSockets
const BLOCKED_DELAY = 20000;
const WATCH = 5000; // ms between two checks of how long nothing has come
const CONNECTING = 0; // a WebSocket's readyState
const LOST = 1006; // the code of a connection that ended without a close frame

const FOR_GOOD = ["asleep", "ended", "closed"]; // states in which no other try follows by itself

// Invariants: there is a socket, or a question whether the server is there, or a timer for the next try, or none of
// them while it is asleep, ended, closed or paused. `ready` is only true while the socket is open. There is a former
// socket only until the present one is greeted.
export class ReconnectingSocket {
  #url;
  #token;
  #protocols;
  #health;
  #canServe;
  #whenFailed;
  #WebSocket;
  #fetch;
  #on;
  #observer;
  /** @type {any} */
  #socket = null;
  /** @type {any} */
  #former = null; // the socket that is being replaced, until the new one is greeted
  #upgraded = false; // the server has accepted the WebSocket
  #paused = false;
  #isAway = false; // asleep only because the page was left
  #isDoubtful = false; // the last try has failed: the server may be gone
  /** @type {object | null} */
  #question = null; // whether the server is there
  #attempt = 0; // tries since a connection was good
  #failures = 0; // of the agent, in a row
  #agentFailed = false; // an error on this socket has said so
  #unopened = 0; // sockets in a row that were never opened
  /** @type {any} */
  #timer = 0; // for the next try; while there is a socket, for the end of the server's first frames
  /** @type {any} */
  #settling = 0;
  /** @type {any} */
  #probing = 0;
  #lastReceived = 0;
  #watching;
  #unwatch;
  ready = false; // the server has greeted: frames can be sent
  silence = 60000; // ms without a frame after which the server is asked whether it is there
  probedAt = 0; // when it was asked last
  /** @type {import("./types.js").ConnectionState} */
  state = { name: "connecting" };

  // `url` is a function, because the address may contain the last number seen; so is `token`, because it may change.
  // `health` answers over plain HTTP while the server runs. After a loss no WebSocket is opened before it has answered:
  // after each WebSocket that failed, Firefox holds the next one back 1.5 times longer, up to minutes. `canServe`
  // answers if the server takes connections, too; without it the state is never "blocked". `whenFailed` is the state
  // after too many failures of the agent: "ended" or "asleep". `observer`: see observer.js.
  // `on` has state(state), data(data) and gone(lost): frames that were sent may not have arrived; `lost` is false if the
  // socket is only being replaced.
  constructor({
    url,
    token = () => "",
    protocols = /** @type {string[]} */ ([]),
    health = /** @type {string | URL | null} */ (null),
    canServe = /** @type {string | URL | null} */ (null),
    whenFailed = "ended",
    WebSocket = globalThis.WebSocket,
    fetch = globalThis.fetch,
    on,
    observer = /** @type {ReturnType<typeof import("./observer.js").observer> | null} */ (null),
  }) {
    this.#url = url;
    this.#token = token;
    this.#protocols = protocols;
    this.#health = health;
    this.#canServe = canServe;
    this.#whenFailed = whenFailed;
    this.#WebSocket = WebSocket;
    this.#fetch = fetch;
    this.#on = on;
    this.#observer = observer;
    this.#watching = setInterval(() => this.#watch(), WATCH);
    this.#unwatch = watchPage({
      online: () => (this.ready ? this.probe() : this.hurry()),
      shown: () => this.hurry(),
      left: () => this.#leave(),
      returned: () => this.#isAway && this.open(),
    });
  }

  // Opens a socket, or replaces the present one, which stays open until the new one is greeted: a conversation without
  // any socket might be ended by the server.
  open() {
    if (this.#paused || this.state.name === "closed") return;
    if (this.ready) {
      this.#former = this.#socket;
      ignore(this.#former);
    } else if (this.#socket) abandon(this.#socket);
    this.#socket = null;
    this.#isAway = false;
    this.#detach(false);
    if (this.state.name !== "blocked") this.become({ name: "connecting", again: this.#attempt > 0 });
    if (this.#isDoubtful && this.#health) this.#ask();
    else this.#connect();
  }

  // The server's greeting has come.
  greeted() {
    this.ready = true;
    this.#isDoubtful = false;
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
    this.#observer?.frame("up", data.type === "token" ? '{"type":"token"}' : frame);
    this.#socket.send(frame);
    return true;
  }

  // Whether the one that is greeted takes the place of another, which the server still counts.
  get isReplacing() {
    return this.#former !== null;
  }

  // Bytes that wait for the network.
  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  // No socket is opened until resume().
  pause() {
    this.#paused = true;
    this.#question = null;
    clearTimeout(this.#timer);
    if (this.#socket) abandon(this.#socket);
    this.#socket = null;
  }

  resume() {
    if (!this.#paused) return;
    this.#paused = false;
    this.open();
  }

  // For good.
  close() {
    clearInterval(this.#watching);
    this.#unwatch();
    this.#stop({ name: "closed" });
  }

  // There is another token: the server is told, or it is tried again with it.
  renew(token) {
    if (!this.send({ type: "token", token })) this.retry();
  }

  // Opens a socket if it is asleep: there is input.
  wake() {
    if (this.state.name === "asleep") this.open();
  }

  // Tries now, because a try may succeed: the network is back, or the user has returned to the page.
  hurry() {
    const isPausing = ["waiting", "blocked"].includes(this.state.name) && !this.#socket;
    if (isPausing || this.#question) this.open(); // a question may have got lost with the network
    else if (this.ready && this.#silentFor() > this.silence / 2) this.probe();
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
    this.#observer?.frame("down", data);
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

  // ---- how it begins

  #connect() {
    const Socket = this.#WebSocket;
    const socket = new Socket(this.#url(), subprotocols(this.#protocols, this.#token()));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#upgraded = true;
      this.#unopened = 0;
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    // A close follows, which says more; but not in Node 20, if the server does not take the WebSocket.
    socket.onerror = () => this.#upgraded || this.#lost(LOST);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(LOST), HELLO_TIMEOUT);
  }

  // Opens a WebSocket if the server is there, and otherwise tries again later.
  async #ask() {
    const question = (this.#question = {});
    const isServed = await this.#answers(this.#health);
    if (this.#question !== question) return; // nobody wants to know any more
    this.#question = null;
    if (isServed) return this.#connect();
    this.#unopened = 0;
    this.become({ name: "waiting", delay: this.#tryLater(MAX_ASK_DELAY) });
  }

  async #answers(url) {
    const options = { cache: /** @type {const} */ ("no-store"), signal: AbortSignal.timeout(HEALTH_TIMEOUT) };
    const fetch = this.#fetch; // a browser's own must not be called as a method
    return fetch(url, options).then(({ ok }) => ok, () => false);
  }

  // Exponential backoff with full jitter: a random pause up to a bound that doubles. Otherwise all clients would come
  // back at the same moment after a restart of the server.
  #tryLater(most = MAX_DELAY) {
    const delay = Math.random() * Math.min(most, FIRST_DELAY * 2 ** this.#attempt++);
    this.#isDoubtful = true;
    this.#timer = setTimeout(() => this.open(), delay);
    return delay;
  }

  // ---- how it ends

  #lost(code, reason = "") {
    this.#observer?.closed(code, reason);
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
    const delay = this.#tryLater();
    if (this.state.name !== "blocked") this.become({ name: "waiting", delay });
    if (!upgraded && this.#canServe && ++this.#unopened >= MAX_UNOPENED) this.#findCause(delay);
    else if (this.state.name === "blocked") this.become({ name: "waiting", delay });
  }

  // Finds out whether the server takes no connections, or whether only WebSockets do not get through. The next try waits
  // for that.
  async #findCause(delay) {
    clearTimeout(this.#timer);
    const question = (this.#question = {});
    const isServed = await this.#answers(this.#canServe);
    if (this.#question !== question) return; // the next try has begun, or tries have been stopped
    this.#question = null;
    if (isServed) {
      this.#timer = setTimeout(() => this.open(), BLOCKED_DELAY);
      if (this.state.name !== "blocked") this.become({ name: "blocked" });
      return;
    }
    this.#timer = setTimeout(() => this.open(), delay);
    if (this.state.name === "blocked") this.become({ name: "waiting", delay });
  }

  // The page was left, and the browser keeps it. Its socket would stay open for minutes, and somebody be there who is
  // not.
  #leave() {
    if (this.#paused || FOR_GOOD.includes(this.state.name)) return;
    this.#isAway = true;
    this.#stop({ name: "asleep" });
  }

  #stop(state) {
    if (this.#socket) drop(this.#socket);
    this.#socket = null;
    this.#detach(true);
    this.#end(state);
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
    this.#question = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#settling);
    clearTimeout(this.#probing);
    this.#probing = 0;
    this.#on.gone(lost);
  }
}

function ignore(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.onerror = () => {}; // the package ws throws without it
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
  if (socket.readyState === CONNECTING) socket.onopen = () => socket.close(1000);
  else socket.close(1000);
}
