// A conversation with an agent, as a client has it: connect() begins one.
//
// The parts below it each know one thing: connection.js the live dialect, socket.js when to come back, fallback.js the
// way over HTTP, audio.js the microphone and the loudspeaker, state.js what is to be shown.

import { stats, Voice } from "./audio.js";
import { Connection } from "./connection.js";
import { CutAnswers, openAnswer } from "./cut.js";
import { Fallback } from "./fallback.js";
import { randomId } from "./ids.js";
import { whenLeft } from "./page.js";
import { Teller } from "./teller.js";
import { baseOf } from "./urls.js";

/** @typedef {import("./types.js").ConnectOptions} ConnectOptions */

/**
 * Begins a conversation. It connects at once, and comes back after a loss until `close()`.
 *
 * @param {ConnectOptions} options
 * @returns {Conversation}
 */
export function connect(options) {
  return new Conversation(options);
}

// Invariants: there is a voice if, and only if, `state.call` is not "off". `beside` is true while the connection is
// blocked.
export class Conversation extends Teller {
  #connection;
  #fallback;
  #token;
  #worklets;
  /** @type {Voice | null} */
  #voice = null;
  #isTalking = false; // with push to talk, or told by talk()
  #hasComplained = false; // that the network is slow, in this call
  #usedBeside = false; // a text was sent over HTTP since `beside` began
  // After a stop, sound that was already on its way is thrown away until the server confirms the end of that turn.
  #isDiscarding = false;
  #owesStop = false; // a stop has to be sent as soon as there is a connection
  #cut; // the answers that the server has lost
  #endWatch; // of the page

  /** @param {ConnectOptions} options */
  constructor({ url, user = randomId(), session = "", name = "", audio = false, token = "", worklets, debug, ...given }) {
    const { fallbackSession = randomId(), WebSocket = globalThis.WebSocket, fetch = globalThis.fetch, storage } = given;
    super();
    if (!WebSocket) throw new Error("There is no WebSocket here. Pass one as the option `WebSocket`: the package `ws` has it.");
    const base = baseOf(url);
    const at = (path) => new URL(path, base);
    const socketURL = at(`ws/${encodeURIComponent(user)}`);
    socketURL.protocol = base.protocol.replace("http", "ws"); // and https → wss
    if (session) socketURL.searchParams.set("session_id", session);
    if (name) socketURL.searchParams.set("name", name);
    this.#cut = new CutAnswers(storage, `relay.cut ${socketURL.pathname} ${session}`);
    this.#endWatch = whenLeft(() => this.#cut.remember(openAnswer(this.state.messages)));
    this.#token = token;
    this.#worklets = worklets ? new URL(worklets, base) : undefined;
    const currentToken = () => (typeof this.#token === "function" ? this.#token() : this.#token);
    this.#connection = new Connection({
      url: socketURL,
      token: currentToken,
      audio,
      health: at("health"),
      canServe: at("ready"),
      WebSocket,
      fetch,
      debug,
      on: {
        state: (state) => this.#changed(state),
        hello: (frame) => this.#greeted(frame),
        message: (frame) => this.#received(frame),
        sound: (samples) => this.#heard(samples),
        history: (lines, told) => {
          this.#isDiscarding = false;
          this.#voice?.endOfTurn(); // the next sound does not continue the last one
          if (told.isAnother) this.#cut.remember(openAnswer(this.state.messages));
          this.emit({ type: "history", ...told, lines: this.#cut.into(lines) });
        },
        older: (lines, older) => this.emit({ type: "older", lines, older }),
        cleared: (how, ids) => {
          this.#isDiscarding = false;
          this.#voice?.flush();
          this.#cut.forget();
          this.emit({ type: "cleared", how, ids });
        },
        ...fates((type, id) => this.emit({ type, id })),
      },
    });
    // Without a token, there are only the guest's conversations over HTTP.
    const isReachable = session && (user === "guest" || currentToken());
    this.#fallback = new Fallback({
      url: at("api/v1/chat"),
      token: currentToken,
      session: isReachable ? session : fallbackSession,
      fetch,
      on: {
        sent: (id) => this.emit({ type: "sent", id }),
        refused: (id) => this.emit({ type: "refused", id }),
        message: (frame) => this.#received(frame),
        idle: () => {
          this.#connection.resume();
          this.notify();
        },
      },
    });
    this.#connection.open();
  }

  // ---- writing

  /**
   * Sends a text now, or as soon as there is a connection. `sent`, `confirmed` and others tell what became of it.
   *
   * @param {string} text
   * @returns {string} its id
   */
  say(text) {
    const id = randomId();
    const { beside } = this.state;
    this.emit({ type: "written", id, text, waiting: !beside && !this.#isConnected, beside });
    if (beside) this.#sendBeside(id, text);
    else this.#connection.sendText(id, text);
    return id;
  }

  /**
   * Takes back a text that was not sent yet. A text that was sent can only be interrupted.
   *
   * @param {string} id
   * @returns {boolean} whether it was taken back
   */
  cancel(id) {
    const isBack = this.#connection.takeBack(id) || this.#fallback.takeBack(id);
    if (isBack) this.emit({ type: "cancelled", id });
    return isBack;
  }

  /** Stops the answer that is being given. */
  interrupt() {
    if (this.#fallback.busy) this.#fallback.stop();
    else if (this.state.answering) {
      this.#owesStop = !this.#connection.sendControl("interrupt");
      this.#isDiscarding = true;
    }
    this.#voice?.flush();
    this.notify();
  }

  /** Whether there is an answer that can be interrupted. */
  get canInterrupt() {
    const isAnswering = this.state.answering && this.#isConnected && !this.#isDiscarding;
    return (isAnswering && this.state.role !== "listen") || this.#fallback.busy || Boolean(this.#voice?.playing);
  }

  /**
   * Tells the others that the user types, or does not any more.
   *
   * @param {boolean} isTyping
   * @returns {boolean} whether there is a connection
   */
  typing(isTyping) {
    return this.#connection.sendControl(isTyping ? "typing_start" : "typing_stop");
  }

  /**
   * Answers a tool call that waits (`state.waiting`).
   *
   * @param {string} toolId
   * @param {any} result any JSON value
   * @returns {boolean} whether there is a connection
   */
  answerTool(toolId, result) {
    return this.#connection.sendToolResult(toolId, result);
  }

  /**
   * Asks for the messages before those that are known. An `older` message follows.
   *
   * @param {string} [place]
   * @returns {boolean} whether there is a connection, and something older
   */
  askOlder(place = this.state.older) {
    return place !== "" && this.#connection.askOlder(place);
  }

  // ---- speaking

  /**
   * Opens the microphone and the loudspeaker. Must be called from a click: browsers let a page make sound only after the
   * user has touched it. `call` messages tell of it.
   *
   * @returns {Promise<void>} rejects with an Error whose message can be shown
   */
  async speak() {
    this.hangUp();
    const voice = (this.#voice = new Voice(this.#worklets));
    this.#hasComplained = false;
    voice.onframe = (buffer) => this.#record(buffer);
    voice.onend = () => this.hangUp("The microphone was disconnected, so audio has ended. You can go on in writing.");
    this.emit({ type: "call", state: "asking", why: "" });
    try {
      await voice.start();
    } catch (error) {
      if (this.#voice === voice) this.hangUp(error.message);
      throw error;
    }
    if (this.#voice !== voice) return; // ended while the browser was asking
    this.emit({ type: "call", state: "on", why: "" });
    this.#connection.open(true);
  }

  /**
   * Closes the microphone and the loudspeaker. The answer under way goes on in writing.
   *
   * @param {string} [why] for people
   */
  hangUp(why = "") {
    if (!this.#voice) return;
    this.talk(false);
    const wasReady = this.state.call === "on";
    this.#voice.stop();
    this.#voice = null;
    this.#isDiscarding = false;
    this.emit({ type: "call", state: "off", why });
    const { name } = this.#connection.state;
    if (wasReady && (this.#isConnected || ["connecting", "waiting"].includes(name))) this.#connection.open(false);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#voice?.mute(muted);
    // The user may be muted in the middle of a sentence: the server must not wait for the rest of it.
    if (muted) this.#connection.sendControl("audio_end");
  }

  /**
   * With push to talk (`state.pushToTalk`): the user begins to speak, or has finished. The microphone is sent only
   * meanwhile.
   *
   * @param {boolean} isTalking
   */
  talk(isTalking) {
    if (isTalking === this.#isTalking) return;
    this.#isTalking = isTalking;
    this.#connection.sendControl(isTalking ? "activity_start" : "activity_end");
  }

  /**
   * Sends sound that does not come from this client's microphone.
   *
   * @param {ArrayBuffer} samples 16-bit little-endian mono PCM, 16 kHz
   * @returns {"sent" | "unheard" | "dropped"} `unheard`: there is no connection; `dropped`: the network is too slow
   */
  sendSound(samples) {
    return this.#connection.sendSound(samples);
  }

  /** The microphone and the loudspeaker of the call: its levels, and whether the agent is to be heard. */
  get voice() {
    return this.#voice;
  }

  // ---- the connection

  /** Tries to connect now, also after it has ended. */
  retry() {
    this.#connection.retry();
  }

  /**
   * There is another token of the same user.
   *
   * @param {string} token
   */
  renew(token) {
    if (typeof this.#token !== "function") this.#token = token;
    this.#connection.renew(token);
    // Somebody who was invited to listen may have been invited to write since: a new socket tells.
    if (this.state.role === "listen") this.#connection.open();
  }

  /** Ends it for good. */
  close() {
    this.#endWatch();
    this.#fallback.close();
    this.#connection.close();
    this.endFeeds();
  }

  // ---- what comes

  get #isConnected() {
    return ["connected", "modelling"].includes(this.#connection.state.name);
  }

  #changed(state) {
    this.emit({ type: "state", ...state });
    if (["asleep", "ended", "blocked", "closed"].includes(state.name)) {
      this.#isDiscarding = false;
      this.hangUp(); // who is not there must not go on recording
    }
    this.#goBeside(state.name === "blocked");
  }

  #greeted(frame) {
    this.talk(false);
    this.emit(frame);
    if (frame.role === "listen") this.hangUp();
    if (this.#owesStop) this.#owesStop = !this.#connection.sendControl("interrupt");
  }

  #received(frame) {
    if (frame.mime_type === "text/plain") {
      return this.emit({ type: "text", text: frame.data, isTranscript: Boolean(frame.is_transcript) });
    }
    if (frame.type) return this.emit(frame);
    if (!frame.turn_complete && !frame.interrupted) return;
    const { interrupted, usage, grounding } = frame;
    const wasPlaying = Boolean(this.#voice?.playing);
    this.#isDiscarding = false;
    if (interrupted) this.#voice?.flush();
    else this.#voice?.endOfTurn();
    this.emit({ type: "turn_end", interrupted: Boolean(interrupted), wasPlaying, usage, grounding });
  }

  #heard(samples) {
    stats.receivedFrames++;
    stats.receivedAudioBytes += samples.byteLength;
    if (this.#isDiscarding) return;
    this.#voice?.play(samples.slice()); // what is played is moved away
    this.emit({ type: "sound", samples });
  }

  #record(buffer) {
    if (this.state.pushToTalk && !this.#isTalking) return;
    const { byteLength } = buffer;
    const fate = this.#connection.sendSound(buffer);
    if (fate === "sent") {
      stats.sentFrames++;
      stats.sentBytes += byteLength;
    } else if (fate === "dropped" && !this.#hasComplained) {
      this.#hasComplained = true;
      this.emit({ type: "slow" });
    }
  }

  // ---- over HTTP

  #sendBeside(id, text) {
    this.#usedBeside = true;
    this.#connection.pause();
    this.#fallback.send(id, text);
  }

  #goBeside(active) {
    if (active === this.state.beside) return;
    if (active) this.#cut.remember(openAnswer(this.state.messages)); // it is closed now
    const used = this.#usedBeside;
    this.#usedBeside = false;
    this.emit({ type: "beside", active, used });
    if (!active) return;
    for (const { id, words } of this.#connection.takeHomeless()) this.#sendBeside(id, words);
  }
}

// What becomes of a text: a handler for each.
function fates(tell) {
  const types = /** @type {const} */ (["sent", "unsent", "placed", "confirmed", "refused"]);
  return Object.fromEntries(types.map((type) => [type, (/** @type {string} */ id) => tell(type, id)]));
}
