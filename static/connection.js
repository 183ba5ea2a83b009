// The socket: opening it, noticing that it died, opening it again, and seeing to it that nothing is lost meanwhile.
//
// All that is said has a number (`seq`), within a life of the conversation on the server (`epoch`). Every socket is
// opened with the last number that was seen, and the server goes on from there. Where it cannot, it tells the whole
// conversation instead: so it is with a page that has just been loaded, too. What is written here has a random id,
// and is sent again until the server has confirmed it; an id that the server knows is not said twice.
//
// Knows frames and close codes; knows nothing of the page. Reports by calling the handlers it is given:
//   state(state)      {name, …}, see below
//   hello(frame)      a new socket is ready
//   message(frame)    any other JSON frame that the page should see; of what a user said, `mine` tells whether it was
//                     said from this page
//   sound(samples)    an Int16Array, 24 kHz mono
//   history(lines, ids, isAnother)   the conversation, [{role, text, open, mine}, …], in the place of all that was
//                     shown of it; the texts of these ids are not in it yet; isAnother: it is another life of it
//   cleared(how, ids) the conversation was emptied, "cleared" or "deleted"; but for the texts of these ids
//   sent(id), unsent(id)  a text of sendText() has left; the connection was lost before it was confirmed
//   placed(id)        the connection was lost when it was written: it was said after all that was told so far
//   confirmed(id)     it has arrived
//   refused(id)       it was refused, and is not sent again; an error frame, which follows, tells why
//
// State names: connecting · connected · modelling (connected, but the server is remaking its own connection to the
// model) · waiting (for the next try; has `delay`, in ms) · blocked (the server is there, but no WebSocket gets
// through; tried again now and then) · asleep (closed as idle; the next input opens it) · ended (retrying would not
// help; has `reason`).

const SUBPROTOCOL = "relay.v1"; // asks for sound as binary frames: a quarter less to send, nothing to decode
const FIRST_DELAY = 500;
const MAX_DELAY = 15000;
const HELLO_TIMEOUT = 15000; // the history that follows included
const PROBE_TIMEOUT = 10000;
const HEALTH_TIMEOUT = 5000;
const SETTLED = 5000; // a connection that lived this long was a success: the next backoff starts small again
const MAX_FAILURES = 6; // in a row, of an agent that says it failed for good
const MAX_UNOPENED = 3; // sockets in a row that were never opened: something may be in the way
const BLOCKED_DELAY = 20000;
const MAX_BUFFERED = 256 * 1024; // bytes: about eight seconds of microphone

const REFUSALS = {
  4401: "The server wants you to sign in first.",
  4403: "The server does not let you in.",
  4404: "The server has no conversation at this address.",
};

export class Connection {
  #url;
  #health;
  #on;
  #log;
  #socket = null;
  #former = null; // the socket before it, until the new one is ready
  #ready = false; // hello has come
  #opened = false; // the upgrade was granted
  #audio = false;
  #paused = false;
  #epoch = null;
  #seq = 0; // the last number seen
  #announced = null; // the epoch of hello, while its history is still to come
  #lines = null; // the history that is coming: {to, count, lines}
  #ids = new Set(); // connection ids that this page has had
  #own = new Set(); // ids of all texts that were written here
  // Those not confirmed yet: {id, text, late, sent, seq}. `sent`: by the present socket. `seq`: the last number seen
  // when it was sent first, if it was. `late`: what is told before it is confirmed was said before it.
  #texts = [];
  #known = new Map(); // text → how often a user is known to have said it
  #attempt = 0;
  #failures = 0;
  #unopened = 0;
  #timer = 0; // the next try, or the wait for hello
  #settling = 0;
  #probe = 0;
  #heard = 0;
  #silence = 60000; // longest that a living server says nothing
  state = { name: "connecting" };

  // `health`: a URL that answers over plain HTTP if the server is there.
  constructor({ url, health, on, debug }) {
    this.#url = url;
    this.#health = health;
    this.#on = on;
    this.#log = debug ? logFrame : () => {};
    setInterval(() => this.#watch(), 5000);
    addEventListener("online", () => (this.#ready ? this.#startProbe() : this.hurry()));
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  // ---- what the page asks for

  // Opens a socket, or replaces the present one (to switch between writing and speaking). The new one goes on where
  // the old one was at this moment. That stays open until then: without any, the server might end an answer.
  open(audio = this.#audio) {
    this.#audio = audio;
    if (this.#paused) return;
    if (this.#ready) {
      this.#former = this.#socket;
      silence(this.#former);
    } else if (this.#socket) abandon(this.#socket);
    this.#reset();
    if (this.state.name !== "blocked") this.#become({ name: "connecting", again: this.#attempt > 0 });

    const url = new URL(this.#url);
    url.searchParams.set("is_audio", String(audio));
    url.searchParams.set("after", `${this.#epoch ?? 0}.${this.#seq}`); // 0.0: tell me everything
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#opened = true;
      this.#unopened = 0;
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(0, "no hello"), HELLO_TIMEOUT);
  }

  // Sends a text now, or as soon as there is a connection. `id` is random, and comes back in the handlers.
  sendText(id, text) {
    this.#own.add(id);
    this.#texts.push({ id, text, late: !this.#ready, sent: false, seq: null });
    this.#flush();
    if (this.state.name === "asleep") this.open();
  }

  // Somebody is being answered without a socket: none is opened, or its conversation would come into the midst of that.
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

  // The texts that no socket has taken yet: they are somebody else's to send now.
  takeUntried() {
    const untried = this.#texts.filter(({ seq }) => seq === null);
    this.#texts = this.#texts.filter(({ seq }) => seq !== null);
    return untried;
  }

  // Sends a frame of the microphone, and says what became of it: "sent", "unheard" (nobody is there just now) or
  // "dropped", because the network is slower than speech. Sound that waits is worth nothing when it arrives, and a
  // queue without a bound only grows.
  sendSound(buffer) {
    if (!this.#ready) return "unheard";
    if (this.#socket.bufferedAmount > MAX_BUFFERED) return "dropped";
    this.#send(buffer);
    return "sent";
  }

  // Sends {"type": type}, if there is anybody to hear it; returns whether there is.
  sendControl(type) {
    if (this.#ready) this.#send(JSON.stringify({ type }));
    return this.#ready;
  }

  // Something suggests that trying now is worth while: the network is back, the reader is looking.
  hurry() {
    if (["waiting", "blocked"].includes(this.state.name)) {
      if (!this.#socket) this.open();
    } else if (this.#ready && performance.now() - this.#heard > this.#silence / 2) this.#startProbe();
  }

  // Another try because the reader asks for it.
  retry() {
    this.#attempt = this.#failures = 0;
    this.open();
  }

  // ---- frames

  #send(data) {
    this.#log("[CLIENT TO AGENT]", data);
    this.#socket.send(data);
  }

  #flush() {
    if (!this.#ready || this.#announced) return;
    for (const text of this.#texts) {
      if (text.sent) continue;
      // If it was said all the same, and nothing since, that is the first thing which is told again.
      if (text.seq === this.#seq) text.late = true;
      text.seq ??= this.#seq;
      text.sent = true;
      this.#send(JSON.stringify({ mime_type: "text/plain", data: text.text, id: text.id }));
      this.#on.sent(text.id);
    }
  }

  #receive(data) {
    this.#log("[AGENT TO CLIENT]", data);
    // Anything that comes is a sign of life.
    this.#heard = performance.now();
    clearTimeout(this.#probe);
    this.#probe = 0;

    if (data instanceof ArrayBuffer) {
      if (data.byteLength < 4 || !this.#isNew(new DataView(data).getUint32(0))) return; // big-endian
      this.#on.sound(new Int16Array(data.slice(4, data.byteLength - (data.byteLength % 2))));
      return;
    }
    const frame = JSON.parse(data);
    switch (frame.type) {
      case "hello":
        return this.#hello(frame);
      case "ping":
        return this.sendControl("pong");
      case "pong":
        return;
      case "status":
        return this.#become({ name: frame.state === "reconnecting" ? "modelling" : "connected" });
      case "ack":
        return this.#confirm(frame.id);
      case "gap":
        this.#lines = { to: frame.to, count: frame.messages, lines: [] };
        return this.#rewrite();
      case "cleared":
      case "deleted":
        return this.#restart(frame);
    }
    if (this.#lines && frame.type === "message") {
      this.#lines.lines.push(frame);
      return this.#rewrite();
    }
    if (frame.seq && !this.#isNew(frame.seq)) return;
    if (frame.mime_type === "audio/pcm") return this.#on.sound(decode(frame.data));
    if (frame.type === "error") this.#refuse(frame.id);
    else this.#failures = 0; // the agent does work
    if (frame.code === "model_refused") this.#failures = MAX_FAILURES; // and would be refused again
    // A former socket said it, or it would not be told.
    if (frame.type === "message" && this.#own.has(frame.id)) return this.#place(frame.id);
    if (frame.type === "message" || (frame.type === "transcript" && frame.final)) tally(this.#known, frame.text);
    if ("connection_id" in frame) frame.mine = !frame.connection_id || this.#ids.has(frame.connection_id);
    this.#on.message(frame);
  }

  #isNew(seq) {
    if (seq <= this.#seq) return false;
    this.#seq = seq;
    return true;
  }

  #hello(frame) {
    this.#silence = (frame.ping_interval ?? 25) * 2000 + 10000;
    this.#ids.add(frame.connection_id);
    this.#ready = true;
    this.#settling = setTimeout(() => (this.#attempt = 0), SETTLED);
    if (frame.epoch === this.#epoch) clearTimeout(this.#timer);
    else this.#announced = frame.epoch;
    if (this.#former) abandon(this.#former);
    this.#former = null;
    this.#become({ name: "connected" });
    this.#on.hello(frame);
    this.#flush();
  }

  // ---- what is known of the conversation

  // The history counts when it is there to its last line: a socket that is lost before that asks for it again.
  #rewrite() {
    const { to, count, lines } = this.#lines;
    if (lines.length < count) return;
    this.#lines = null;
    clearTimeout(this.#timer);
    const isAnother = this.#epoch !== null && this.#announced !== null;
    this.#epoch = this.#announced ?? this.#epoch;
    this.#announced = null;
    this.#seq = to;

    // What was sent before the connection was lost may have arrived, and be in it with its id. A server that was
    // restarted knows no ids any more: there it is a text that is there once more than it was before.
    const before = this.#known;
    const ids = new Set();
    const nameless = new Map();
    this.#known = new Map();
    for (const { role, text, id } of lines) {
      if (role !== "user") continue;
      tally(this.#known, text);
      if (id) ids.add(id);
      else tally(nameless, text);
    }
    this.#texts = this.#texts.filter(({ id, text, seq }) => {
      if (ids.has(id)) return false;
      if (seq === null || !((nameless.get(text) ?? 0) > (before.get(text) ?? 0))) return true;
      tally(before, text);
      return false;
    });
    for (const line of lines) line.mine = this.#own.has(line.id);
    this.#on.history(lines, this.#unconfirmed(), isAnother);
    this.#flush();
  }

  // The server has emptied the conversation: a new life of it begins, in which it has seen no id yet.
  #restart({ type, epoch, seq }) {
    clearTimeout(this.#timer);
    this.#epoch = epoch;
    this.#seq = seq;
    this.#announced = this.#lines = null;
    this.#known.clear();
    for (const text of this.#texts) text.sent = false;
    this.#on.cleared(type, this.#unconfirmed());
    this.#flush();
  }

  #unconfirmed() {
    return this.#texts.map(({ id }) => id);
  }

  #confirm(id) {
    const index = this.#texts.findIndex((text) => text.id === id);
    if (index < 0) return;
    const [{ text, late }] = this.#texts.splice(index, 1);
    tally(this.#known, text);
    if (late) this.#on.placed(id);
    this.#on.confirmed(id);
  }

  #place(id) {
    const text = this.#texts.find((text) => text.id === id);
    if (!text) return;
    text.late = false;
    this.#on.placed(id);
  }

  #refuse(id) {
    const index = this.#texts.findIndex((text) => text.id === id);
    if (index < 0) return;
    this.#texts.splice(index, 1);
    this.#on.refused(id);
  }

  // ---- ends

  #lost(code, reason) {
    const opened = this.#opened;
    const unsure = this.#texts.filter(({ sent }) => sent);
    if (this.#socket) abandon(this.#socket);
    this.#socket = null;
    this.#reset();
    for (const { id } of unsure) this.#on.unsent(id);

    if (code in REFUSALS) return this.#end({ name: "ended", reason: reason || REFUSALS[code] });
    if (code === 1000 || (code === 4408 && /idle/i.test(reason))) return this.#end({ name: "asleep" });
    if (code === 1011 && ++this.#failures >= MAX_FAILURES) {
      return this.#end({ name: "ended", reason: reason || "The agent cannot be reached." });
    }
    // Exponential backoff with full jitter: any moment up to the bound, so that the thousand pages which one restart
    // cut off do not all come back in the same instant.
    const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempt++);
    this.#timer = setTimeout(() => this.open(), delay);
    if (this.state.name !== "blocked") this.#become({ name: "waiting", delay });
    if (!opened && ++this.#unopened >= MAX_UNOPENED) this.#askWhy(delay);
    else if (this.state.name === "blocked") this.#become({ name: "waiting", delay });
  }

  // Is it the server that is gone, or do only WebSockets not get through?
  async #askWhy(delay) {
    const options = { cache: "no-store", signal: AbortSignal.timeout(HEALTH_TIMEOUT) };
    const served = await fetch(this.#health, options).then(({ ok }) => ok, () => false);
    // It is being tried already, or is not to be.
    if (this.#socket || this.#paused || !["waiting", "blocked"].includes(this.state.name)) return;
    if (served) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.open(), BLOCKED_DELAY);
      if (this.state.name !== "blocked") this.#become({ name: "blocked" });
    } else if (this.state.name === "blocked") this.#become({ name: "waiting", delay });
  }

  #end(state) {
    if (this.#former) abandon(this.#former);
    this.#former = null;
    this.#audio = false; // whoever comes back comes back writing: nobody leaves a microphone open for hours
    this.#become(state);
  }

  // Forgets all that was about one socket.
  #reset() {
    this.#ready = this.#opened = false;
    this.#announced = this.#lines = null;
    for (const text of this.#texts) text.sent = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#settling);
    clearTimeout(this.#probe);
    this.#probe = 0;
  }

  // A connection can die without a word (a laptop that slept, a network that changed). The server's heartbeat would
  // have been heard by now; so ask, and give up on silence.
  #watch() {
    if (this.#ready && performance.now() - this.#heard > this.#silence) this.#startProbe();
  }

  #startProbe() {
    if (this.#probe) return;
    this.sendControl("ping");
    this.#probe = setTimeout(() => this.#lost(0, "no answer"), PROBE_TIMEOUT);
  }

  #become(state) {
    this.state = state;
    this.#on.state(state);
  }
}

function tally(texts, text) {
  text = text.trim();
  texts.set(text, (texts.get(text) ?? 0) + 1);
}

function silence(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
}

// Closes without waiting for an answer: a dead peer gives none, and onclose would come only after a long timeout.
function abandon(socket) {
  silence(socket);
  // Closing one that is not open yet would be reported in the console as an error.
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close(1000);
  else socket.close(1000);
}

// base64 → samples, for a server that does not speak the subprotocol.
function decode(base64) {
  const binary = atob(base64.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = new Uint8Array(binary.length & ~1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Int16Array(bytes.buffer);
}

function logFrame(direction, data) {
  const base64 = /("data":\s*")([A-Za-z0-9+/=_-]{200,})"/;
  if (data instanceof ArrayBuffer) console.log(direction, `sound, ${data.byteLength} bytes`);
  else console.log(direction, data.replace(base64, (_, key, sound) => `${key}… ${sound.length} characters"`));
}
