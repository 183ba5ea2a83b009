// The live dialect. No message is lost or repeated when one socket replaces another.
//
// Each message of a conversation has a number (`seq`), which counts within one life of the conversation in the server's
// memory (`epoch`). A new socket is opened with the last number that was seen, and the server sends the messages after
// it. If it cannot, or if the page was just loaded, it sends a `gap` and the whole conversation instead. Texts that
// were written here are sent again until they are confirmed (see texts.js).
//
// It calls the handlers that it is given:
//   state(state)      see socket.js; also {name: "modelling"}: connected, but the server is restoring its own
//                     connection to the model
//   hello(frame)      a new socket is ready
//   message(frame)    any other JSON frame that a user should see. In frames about what a user said, `mine` tells
//                     whether it came from this client
//   sound(samples)    an Int16Array, 24 kHz mono
//   history(lines, {ids, isAnother, older})   the conversation, [{role, text, open, mine}, …], which replaces all that
//                     is shown. The texts with these ids are not in it yet. isAnother: a new epoch. older: names the
//                     place before it, for askOlder(); empty: it is the whole conversation
//   older(lines, older)   the messages that askOlder() has asked for, and the place before them
//   cleared(how, ids) the conversation was emptied, "cleared" or "deleted"; the texts with these ids are still to come
//   sent(id), unsent(id)  a text of sendText() was sent; the connection was lost before it was confirmed
//   placed(id)        of a text that was written while the connection was lost: it comes after all messages so far
//   confirmed(id)     the server has it
//   refused(id)       the server refused it, and it is not sent again; an error frame with the reason follows

import { base64 } from "./pictures.js";
import { ReconnectingSocket } from "./socket.js";
import { Texts } from "./texts.js";

const SUBPROTOCOL = "relay.v1"; // asks for sound as binary frames: a quarter less to send, nothing to decode
const MAX_BUFFERED = 256 * 1024; // bytes: about eight seconds of microphone

export class Connection {
  #url;
  #on;
  #socket;
  #audio; // the socket gets the agent's sound
  #alwaysAudio;
  #epoch = null;
  #seq = 0; // the last number seen
  #announced = null; // the epoch that hello has named, until its history is there
  /** @type {{ frame: any, lines: any[] } | null} */
  #coming = null; // the messages that are coming after a gap or a history: {frame, lines}
  #ids = new Set(); // connection ids that this client has had
  #isShowing = false; // the server has not read the last picture yet
  #isToReread = false; // the next socket asks for the whole conversation
  // Each text also has `seq`, the last number seen when it was first sent, and `late`: messages that come before its
  // confirmation are before it in the conversation.
  #texts = new Texts();

  // `audio`: whether it gets the agent's sound without a call. For the rest see socket.js.
  constructor({ url, on, audio = false, ...options }) {
    this.#url = url;
    this.#on = on;
    this.#audio = this.#alwaysAudio = audio;
    this.#socket = new ReconnectingSocket({
      ...options,
      url: () => this.#address(),
      protocols: [SUBPROTOCOL],
      on: {
        state: (state) => this.#changed(state),
        data: (data) => this.#receive(data),
        gone: (lost) => this.#gone(lost),
      },
    });
  }

  get state() {
    return this.#socket.state;
  }

  // ---- for the user

  // Opens a socket, or replaces the present one to switch between writing and speaking.
  open(speaks = this.#audio) {
    this.#audio = speaks || this.#alwaysAudio;
    this.#socket.open();
  }

  // Sends a text now, or as soon as there is a connection. `id` is random, and comes back in the handlers.
  sendText(id, text, stateDelta, pictures) {
    this.#texts.add(id, text, { stateDelta, pictures, seq: null, late: !this.#socket.ready });
    this.#flush();
    this.#socket.wake();
  }

  // Keeps the socket closed while a text is answered without one. A socket would bring its own conversation into the
  // middle of that answer.
  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  // Gives up the texts that were written before any conversation was there, and returns them: they are sent another way.
  // What was written in a conversation waits for it.
  takeHomeless() {
    if (this.#epoch !== null) return [];
    const homeless = this.#texts.unconfirmed;
    for (const { id } of homeless) this.#texts.remove(id);
    return homeless;
  }

  // Takes a text back that no socket has taken yet; returns whether there was one.
  takeBack(id) {
    return this.#texts.find(id)?.tried === false && Boolean(this.#texts.remove(id));
  }

  // Sends a frame of the microphone, and returns the result: "sent", "unheard" (there is no connection) or "dropped"
  // (the network is slower than speech). Sound does not wait, because late sound is useless.
  sendSound(buffer) {
    if (!this.#socket.ready) return "unheard";
    if (this.#socket.buffered > MAX_BUFFERED) return "dropped";
    this.#socket.send(buffer);
    return "sent";
  }

  // Sends a picture, and returns the result as sendSound does. `data`: in base64.
  sendPicture(mimeType, data) {
    if (!this.#socket.ready) return "unheard";
    if (this.#socket.buffered > MAX_BUFFERED) return "dropped";
    this.#socket.send({ mime_type: mimeType, data });
    this.#isShowing = this.sendControl("ping"); // its answer comes when the picture has been read
    return "sent";
  }

  // Whether the server has read all pictures. Those of a camera wait for that: if they queued behind one another, the
  // newest, and the user's voice, would come late.
  get hasReadPictures() {
    return this.#socket.ready && !this.#isShowing && this.#socket.buffered < MAX_BUFFERED / 4;
  }

  // Sends {"type": type} if there is a connection; returns whether there is.
  sendControl(type, fields = {}) {
    return this.#socket.send({ type, ...fields });
  }

  // Asks for the messages before a place, if there is a connection; returns whether there is.
  askOlder(place) {
    return !this.#announced && this.#socket.send({ type: "history", before: place });
  }

  // Answers a tool call that waits, if there is a connection; returns whether there is.
  sendToolResult(toolId, result) {
    return this.#socket.send({ type: "tool_result", tool_id: toolId, result });
  }

  retry() {
    this.#socket.retry();
  }

  renew(token) {
    this.#socket.renew(token);
  }

  close() {
    this.#socket.close();
  }

  // ---- the socket

  #address() {
    const url = new URL(this.#url);
    url.searchParams.set("is_audio", String(this.#audio));
    // 0.0: the whole conversation
    url.searchParams.set("after", this.#epoch === null || this.#isToReread ? "0.0" : `${this.#epoch}.${this.#seq}`);
    return url;
  }

  #changed(state) {
    // A client that wakes up comes back without audio: a microphone must not stay open for hours.
    if (["asleep", "ended"].includes(state.name)) this.#audio = this.#alwaysAudio;
    // What is open was cut off, and stays so: the rest of an answer would be shown as another one.
    if (state.name === "blocked") this.#isToReread = this.#epoch !== null;
    this.#on.state(state);
  }

  #gone(lost) {
    const unsure = this.#texts.unconfirmed.filter(({ sent }) => sent);
    this.#announced = this.#coming = null;
    this.#isShowing = false;
    this.#texts.markUnsent();
    if (lost) for (const { id } of unsure) this.#on.unsent(id);
  }

  // ---- frames

  #flush() {
    if (!this.#socket.ready || this.#announced) return;
    for (const text of this.#texts.unconfirmed) {
      if (text.sent) continue;
      // If the server has the text already, and no message came since, the text is the first message that is replayed.
      if (text.seq === this.#seq) text.late = true;
      text.seq ??= this.#seq;
      text.sent = text.tried = true;
      // Before the text, which asks about them. They have no id, so they are sent whenever the text is.
      for (const { mime_type, data } of text.pictures) this.#socket.send({ mime_type, data: base64(data) });
      this.#socket.send({ mime_type: "text/plain", data: text.words, id: text.id, state_delta: text.stateDelta });
      this.#on.sent(text.id);
    }
  }

  #receive(data) {
    if (data instanceof ArrayBuffer) {
      if (data.byteLength < 4 || !this.#isNew(new DataView(data).getUint32(0))) return; // big-endian
      this.#on.sound(new Int16Array(data.slice(4, data.byteLength - (data.byteLength % 2))));
      return;
    }
    const frame = JSON.parse(data);
    switch (frame.type) {
      case "hello":
        return this.#greeted(frame);
      case "ping":
        return this.sendControl("pong");
      case "pong":
        this.#isShowing = false;
        return;
      case "status":
        return this.#socket.become({
          name: ["reconnecting", "degraded"].includes(frame.state) ? "modelling" : "connected",
        });
      case "ack":
        return this.#confirm(frame.id);
      case "gap":
      case "history":
        this.#coming = { frame, lines: [] };
        return this.#readLines();
      case "cleared":
      case "deleted":
        return this.#restart(frame);
    }
    if (this.#coming && frame.type === "message") {
      this.#coming.lines.push(frame);
      return this.#readLines();
    }
    if (frame.seq && !this.#isNew(frame.seq)) return;
    if (frame.mime_type === "audio/pcm") return this.#on.sound(decode(frame.data));
    if (frame.type === "error") {
      if (this.#socket.heardError(frame.code)) return;
      this.#refuse(frame.id);
    } else this.#socket.agentWorks();
    if (frame.code === "model_refused") this.#socket.agentFailsForGood();
    // Written here and sent by a former socket: a socket does not get its own texts.
    if (frame.type === "message" && this.#texts.isMine(frame.id)) return this.#place(frame.id);
    if (frame.type === "message" || (frame.type === "transcript" && frame.final)) this.#texts.count(frame.text);
    if (frame.type === "rewound") this.#texts.takeBack(frame.id);
    if ("connection_id" in frame) frame.mine = !frame.connection_id || this.#ids.has(frame.connection_id);
    this.#on.message(frame);
  }

  #isNew(seq) {
    if (seq <= this.#seq) return false;
    this.#seq = seq;
    return true;
  }

  #greeted(frame) {
    this.#socket.silence = (frame.ping_interval ?? 25) * 2000 + 10000; // longer than two of the server's pings
    this.#ids.add(frame.connection_id);
    if (this.#socket.isReplacing) frame.connections--;
    if (frame.epoch === this.#epoch && !this.#isToReread) this.#socket.caughtUp();
    else this.#announced = frame.epoch;
    this.#socket.greeted();
    this.#on.hello(frame);
    this.#flush();
  }

  // ---- the conversation

  // Messages are used when the last one is there: if the socket is lost before that, the next one asks for them again.
  #readLines() {
    const { frame, lines } = /** @type {{ frame: any, lines: any[] }} */ (this.#coming);
    if (lines.length < frame.messages) return;
    this.#coming = null;
    if (frame.type === "gap") this.#readHistory(frame, lines);
    else this.#on.older(lines, frame.older ?? "");
  }

  #readHistory({ to, older = "", epoch = this.#announced }, lines) {
    this.#socket.caughtUp();
    this.#isToReread = false;
    const isAnother = this.#epoch !== null && epoch !== null && epoch !== this.#epoch;
    this.#epoch = epoch ?? this.#epoch;
    this.#announced = null;
    this.#seq = to;
    this.#texts.takeHistory(lines);
    for (const line of lines) line.mine = this.#texts.isMine(line.id);
    for (const text of this.#texts.unconfirmed) if (text.placed) text.late = false;
    this.#on.history(lines, { ids: this.#comingIds(), isAnother, older });
    this.#flush();
  }

  // The conversation was emptied: a new epoch begins, in which the server has seen no id yet.
  #restart({ type, epoch, seq }) {
    this.#socket.caughtUp();
    this.#isToReread = false;
    this.#epoch = epoch;
    this.#seq = seq;
    this.#announced = this.#coming = null;
    this.#texts.forgetConversation();
    this.#texts.markUnsent();
    this.#on.cleared(type, this.#comingIds());
    this.#flush();
  }

  // The texts that are not in the conversation yet.
  #comingIds() {
    return this.#texts.unconfirmed.filter(({ placed }) => !placed).map(({ id }) => id);
  }

  #confirm(id) {
    const text = this.#texts.confirm(id);
    if (!text) return;
    if (text.late) this.#on.placed(id);
    this.#on.confirmed(id);
  }

  #place(id) {
    const text = this.#texts.find(id);
    if (!text) return;
    text.late = false;
    text.placed = true;
    this.#on.placed(id);
  }

  #refuse(id) {
    if (this.#texts.remove(id)) this.#on.refused(id);
  }
}

// base64 → samples, for a server that does not speak the subprotocol.
function decode(base64) {
  const binary = atob(base64.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = new Uint8Array(binary.length & ~1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Int16Array(bytes.buffer);
}
