// A conversation with an agent, as a client has it: connect() begins one.
//
// The parts below it each know one thing: connection.js the live dialect, socket.js when to come back, beside.js the
// way over HTTP, call.js the microphone, the loudspeaker and the camera, state.js what is to be shown.

import { stats } from "./audio.js";
import { Beside } from "./beside.js";
import { Call } from "./call.js";
import { Caller } from "./caller.js";
import { Connection } from "./connection.js";
import { CutAnswers, lastAnswer } from "./cut.js";
import { randomId } from "./ids.js";
import { ManualTurns } from "./manual_turns.js";
import { observer } from "./observer.js";
import { base64 } from "./pictures.js";
import { fates } from "./texts.js";
import { baseOf, socketOf } from "./urls.js";

/**
 * @typedef {import("./types.js").ClientTool} ClientTool
 * @typedef {import("./types.js").ConnectOptions} ConnectOptions
 * @typedef {import("./types.js").Picture} Picture
 * @typedef {import("./types.js").StateDelta} StateDelta
 */

/**
 * Begins a conversation. It connects at once, and comes back after a loss until `close()`.
 *
 * @param {ConnectOptions} options
 * @returns {Conversation}
 */
export function connect(options) {
  return new Conversation(options);
}

// Invariant: `beside` is true while the connection is blocked.
export class Conversation extends Caller {
  #connection;
  #beside;
  #token;
  // After a stop, sound that was already on its way is thrown away until the server confirms the end of that turn.
  #isDiscarding = false;
  #owesStop = false; // a stop has to be sent as soon as there is a connection
  #cut; // the answers that the server has lost
  #manual;

  /** @param {ConnectOptions} options */
  constructor({ url, user = randomId(), session = "", name = "", audio = false, token = "", worklets, choices, debug, ...given }) {
    const { fallbackSession = randomId(), WebSocket = globalThis.WebSocket, fetch = globalThis.fetch, storage, lasting } = given;
    super();
    if (!WebSocket) throw new Error("There is no WebSocket here. Pass one as the option `WebSocket`: the package `ws` has it.");
    const base = baseOf(url);
    const at = (path) => new URL(path, base);
    const socketURL = socketOf(base, { user, session, name });
    this.#cut = new CutAnswers(storage, `relay.cut ${socketURL.pathname} ${session}`, () => lastAnswer(this.state.messages));
    this.#token = token;
    const currentToken = () => (typeof this.#token === "function" ? this.#token() : this.#token);
    this.#connection = new Connection({
      url: socketURL,
      token: currentToken,
      audio,
      health: at("health"),
      canServe: at("ready"),
      WebSocket,
      fetch,
      observer: debug ? observer((message) => this.emit(message)) : null,
      on: {
        state: (state) => this.#changed(state),
        hello: (frame) => this.#greeted(frame),
        message: (frame) => this.#received(frame),
        sound: (samples) => this.#heard(samples),
        history: (lines, told) => {
          this.#isDiscarding = false;
          this.voice?.miss();
          this.emit({ type: "history", ...told, lines: this.#cut.into(lines, told.isAnother) });
        },
        older: (lines, older) => this.emit({ type: "older", lines, older }),
        cleared: (how, ids) => {
          this.#isDiscarding = false;
          this.voice?.flush();
          this.#cut.forget();
          this.emit({ type: "cleared", how, ids });
        },
        ...fates((type, id) => this.emit({ type, id })),
      },
    });
    const call = new Call({
      connection: this.#connection,
      name: `relay call ${at(encodeURIComponent(user))}`,
      worklets: worklets ? new URL(worklets, base) : undefined,
      host: {
        emit: (message) => this.emit(message),
        state: () => this.state,
        opened: () => this.#connection.open(true),
        ended: (wasOpen) => this.#hungUp(wasOpen),
        interrupt: () => this.interrupt(),
      },
    });
    this.begin(call);
    this.#manual = new ManualTurns(this, socketURL.pathname, lasting);
    if (choices) this.choose(choices);
    // Without a token, there are only the guest's conversations over HTTP.
    const isReachable = session && (user === "guest" || currentToken());
    this.#beside = new Beside(this.#connection, {
      url: at("api/v1/chat"),
      token: currentToken,
      session: isReachable ? session : fallbackSession,
      fetch,
      emit: (message) => this.emit(message),
      received: (frame) => this.#received(frame),
      notify: () => this.notify(),
    });
    this.#connection.open();
  }

  // ---- writing

  /**
   * Sends a text now, or as soon as there is a connection. `sent`, `confirmed` and others tell what became of it.
   *
   * @param {string} text
   * @param {{ stateDelta?: StateDelta, pictures?: readonly Picture[] }} [more] stateDelta: what it sets in the session's
   *   state, which the agent's instruction sees in this turn; pictures: what the text is about. Where the connection is
   *   lost before the text is confirmed, they are sent again with it, and the agent may see them twice. The session keeps
   *   none: an agent that starts anew has not seen them.
   * @returns {string} its id
   */
  say(text, { stateDelta, pictures = [] } = {}) {
    const id = randomId();
    const { beside } = this.state;
    this.emit({ type: "written", id, text, pictures, waiting: !beside && !this.#isConnected, beside });
    if (beside) this.#beside.send(id, text, stateDelta, pictures);
    else this.#connection.sendText(id, text, stateDelta, pictures);
    return id;
  }

  /**
   * Takes back a text that was not sent yet. A text that was sent can only be interrupted.
   *
   * @param {string} id
   * @returns {boolean} whether it was taken back
   */
  cancel(id) {
    const isBack = this.#connection.takeBack(id) || this.#beside.takeBack(id);
    if (isBack) this.emit({ type: "cancelled", id });
    return isBack;
  }

  /**
   * Takes back what a user has written or said last, and all after it. To let it be answered again, edited or not, say()
   * the text right after that. Returns whether there is a connection to send it.
   *
   * @param {string} [id] that of the text, if it has one: it is refused if another one has come since
   */
  rewind(id) {
    const isSent = !this.state.beside && this.#connection.sendControl("rewind", id ? { id } : {});
    if (isSent) {
      this.#isDiscarding = this.state.answering;
      this.voice?.flush();
      this.notify();
    }
    return isSent;
  }

  /**
   * Chooses how the agent answers from its next turn on, for all in the conversation; what is left out stays. `voice` and
   * `language`: one of `state.voices` and `state.languages`, or "" for the operator's own choice. `instructions` come after
   * the agent's own; `tools` are all that clients have: a call of one waits in `state.waiting` for `answerTool()`. Where
   * instructions and tools may not be set, an `error` follows. Returns whether there is a connection to send it.
   *
   * @param {{ voice?: string, language?: string, instructions?: string, tools?: readonly ClientTool[],
   *   pushToTalk?: boolean, temperature?: number }} choice
   */
  configure({ pushToTalk, ...choice }) {
    return this.#connection.sendControl("configure", { ...choice, push_to_talk: pushToTalk });
  }

  /** Whether `choose()` decides when the microphone is sent: not where others have set that all need push to talk. */
  get canChooseMode() {
    return !this.state.mustPushToTalk || this.#manual.isOwn;
  }

  /** Stops the answer that is being given. */
  interrupt() {
    const isOver = !this.state.answering;
    if (this.#beside.busy) this.#beside.stop();
    else if (!isOver) {
      this.#owesStop = !this.#connection.sendControl("interrupt");
      this.#isDiscarding = true;
    }
    this.voice?.flush(isOver);
    this.notify();
  }

  /** Whether there is an answer that can be interrupted. */
  get canInterrupt() {
    const isAnswering = this.state.answering && this.#isConnected && !this.#isDiscarding;
    return (isAnswering && this.state.role !== "listen") || this.#beside.busy || Boolean(this.voice?.playing);
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

  // ---- sound and pictures of the program's own

  /**
   * Shows the agent a picture.
   *
   * @param {ArrayBuffer | Uint8Array} picture at most 4 MiB
   * @param {"image/jpeg" | "image/png"} [mimeType]
   * @returns {"sent" | "unheard" | "dropped"} as of `sendSound()`
   */
  sendPicture(picture, mimeType = "image/jpeg") {
    return this.#connection.sendPicture(mimeType, base64(picture));
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

  /**
   * Tells how much of an answer was heard that was interrupted: for a program that plays the `sound` messages itself. A
   * call does so by itself.
   *
   * @param {number} milliseconds how much of its sound was played; 0: nothing
   * @param {number} seq that of the `turn_end`
   * @returns {boolean} whether there is a connection
   */
  heard(milliseconds, seq) {
    return this.#connection.sendControl("heard", { audio_ms: milliseconds, seq });
  }

  // ---- the connection

  /** Asks the server for an answer, to see how long one takes; returns whether there is a connection. */
  ping() {
    return this.#connection.sendControl("ping");
  }

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
    this.#cut.close();
    this.#beside.close();
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
    if ((state.name === "blocked") !== this.state.beside) this.#beside.change(!this.state.beside);
  }

  #hungUp(wasOpen) {
    this.#isDiscarding = false;
    const { name } = this.#connection.state;
    if (wasOpen && (this.#isConnected || ["connecting", "waiting"].includes(name))) this.#connection.open(false);
  }

  #greeted(frame) {
    this.greeted(frame);
    this.emit(frame);
    if (frame.role === "listen") this.hangUp();
    if (this.#owesStop) this.#owesStop = !this.#connection.sendControl("interrupt");
  }

  #received(frame) {
    if (frame.mime_type === "text/plain") {
      return this.emit({ type: "text", text: frame.data, isTranscript: Boolean(frame.is_transcript) });
    }
    if (frame.type === "dropped" && frame.direction === "down") this.voice?.skip(frame.audio_ms);
    if (frame.type) return this.emit(frame);
    if (!frame.turn_complete && !frame.interrupted) return;
    const { interrupted, usage, grounding, seq } = frame;
    const wasPlaying = Boolean(this.voice?.playing);
    this.#isDiscarding = false;
    if (interrupted) this.voice?.interrupted(seq, this.state.answering);
    else this.voice?.endOfTurn(seq);
    this.emit({ type: "turn_end", interrupted: Boolean(interrupted), wasPlaying, usage, grounding, seq });
  }

  #heard(samples) {
    stats.receivedFrames++;
    stats.receivedAudioBytes += samples.byteLength;
    if (this.#isDiscarding) return;
    this.voice?.play(samples.slice()); // what is played is moved away
    this.emit({ type: "sound", samples });
  }
}
