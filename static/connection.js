// The socket: opening it, noticing that it died, opening it again, and keeping what was typed meanwhile.
//
// Knows frames and close codes; knows nothing of the page. Reports by calling the handlers it is given:
//   state(state)      {name, …}, see below
//   hello(frame, resumed, news)   a new socket is ready; `resumed`: nothing can have been missed; `news`: something
//                     has been said since the former one was lost
//   message(frame)    any other JSON frame that the page should see
//   sound(samples)    an Int16Array, 24 kHz mono
//   sent(id)          a text of sendText() has left
//   doubtful(ids)     texts that were sent just before the connection was lost: they may not have arrived
//
// State names: connecting · connected · modelling (connected, but the server is remaking its own connection to the
// model) · waiting (for the next try; has `delay`, in ms) · elsewhere (a newer socket has the conversation) ·
// asleep (closed as idle; the next input opens it) · ended (retrying would not help; has `reason`).

const SUBPROTOCOL = "relay.v1"; // asks for sound as binary frames: a quarter less to send, nothing to decode
const FIRST_DELAY = 500;
const MAX_DELAY = 15000;
const HELLO_TIMEOUT = 15000;
const PROBE_TIMEOUT = 10000;
const SETTLED = 5000; // a connection that lived this long was a success: the next backoff starts small again
const MAX_FAILURES = 6; // in a row, of an agent that says it failed for good
const MAX_BUFFERED = 256 * 1024; // bytes: about eight seconds of microphone

const REFUSALS = {
  4401: "The server wants you to sign in first.",
  4403: "The server does not let you in.",
  4404: "The server has no conversation at this address.",
};

export class Connection {
  #url;
  #on;
  #log;
  #socket = null;
  #retiring = null; // the former socket, while a handover is under way
  #ready = false; // hello has come
  #audio = false;
  #outbox = []; // texts waiting for a connection
  #unconfirmed = []; // texts sent since the server was last heard
  #attempt = 0;
  #failures = 0;
  #timer = 0; // the next try, or the wait for hello
  #settling = 0;
  #probe = 0;
  #heard = 0;
  #silence = 60000; // longest that a living server says nothing
  #epoch = null;
  #seq = 0;
  state = { name: "connecting" };

  constructor({ url, on, debug }) {
    this.#url = url;
    this.#on = on;
    this.#log = debug ? logFrame : () => {};
    setInterval(() => this.#watch(), 5000);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  // ---- what the page asks for

  // Opens a socket, or replaces the present one (to switch between writing and speaking, or to take the conversation
  // back). The new one is opened before the old one is closed, so that the words of an answer under way are not lost.
  open(audio = this.#audio) {
    this.#audio = audio;
    this.#retire();
    this.#ready = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#probe);
    this.#probe = 0;
    this.#become({ name: "connecting", again: this.#attempt > 0 });

    const url = new URL(this.#url);
    url.searchParams.set("is_audio", String(audio));
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#lost(socket, code, reason);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(socket, 0, "no hello"), HELLO_TIMEOUT);
  }

  // Sends a text now, or as soon as there is a connection. `id` comes back in sent() and doubtful().
  sendText(id, text) {
    this.#outbox.push({ id, text });
    this.#flush();
    if (["asleep", "elsewhere"].includes(this.state.name)) this.open();
  }

  // Sends a frame of the microphone, and says what became of it: "sent", "unheard" (nobody is there just now) or
  // "dropped", because the network is slower than speech. Sound that waits is worth nothing when it arrives, and a
  // queue without a bound only grows.
  sendSound(buffer) {
    if (!this.#ready || this.state.name === "elsewhere") return "unheard";
    if (this.#socket.bufferedAmount > MAX_BUFFERED) return "dropped";
    this.#send(buffer);
    return "sent";
  }

  // Sends {"type": type}, if there is anybody to hear it.
  sendControl(type) {
    if (this.#ready) this.#send(JSON.stringify({ type }));
  }

  // Something suggests that trying now is worth while: the network is back, the reader is looking.
  hurry() {
    if (this.state.name === "waiting") this.open();
    else if (this.#ready && performance.now() - this.#heard > this.#silence / 2) this.#startProbe();
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
    if (!this.#ready || this.state.name === "elsewhere") return;
    for (const { id, text } of this.#outbox.splice(0)) {
      this.#send(JSON.stringify({ mime_type: "text/plain", data: text }));
      this.#unconfirmed.push(id);
      this.#on.sent(id);
    }
  }

  #receive(socket, data) {
    this.#log("[AGENT TO CLIENT]", data);
    const current = socket === this.#socket;
    if (current) {
      // Anything that comes is a sign of life.
      this.#heard = performance.now();
      this.#unconfirmed.length = 0;
      clearTimeout(this.#probe);
      this.#probe = 0;
    }

    if (data instanceof ArrayBuffer) {
      if (data.byteLength < 4) return;
      this.#seq = Math.max(this.#seq, new DataView(data).getUint32(0)); // big-endian
      this.#on.sound(new Int16Array(data.slice(4, data.byteLength - (data.byteLength % 2))));
      return;
    }
    const frame = JSON.parse(data);
    if (frame.seq && frame.type !== "hello") this.#seq = Math.max(this.#seq, frame.seq);
    switch (frame.type) {
      case "hello":
        return current && this.#hello(frame);
      case "ping":
        if (socket.readyState !== WebSocket.OPEN) return;
        this.#log("[CLIENT TO AGENT]", '{"type":"pong"}');
        return socket.send('{"type":"pong"}');
      case "pong":
        return;
      case "status":
        return this.#status(current, frame.state);
    }
    if (frame.mime_type === "audio/pcm") this.#on.sound(decode(frame.data));
    else {
      if (frame.type !== "error") this.#failures = 0; // the agent does work
      this.#on.message(frame);
    }
  }

  #hello(frame) {
    clearTimeout(this.#timer);
    this.#silence = (frame.ping_interval ?? 25) * 2000 + 10000;
    const same = frame.epoch === this.#epoch;
    const news = same ? frame.seq !== this.#seq : frame.seq > 0; // said while nobody was here
    const resumed = this.#epoch === null || this.#retiring !== null || (same && !news);
    this.#epoch = frame.epoch;
    if (!this.#retiring) this.#seq = frame.seq ?? 0; // otherwise the former socket still delivers up to there
    this.#ready = true;
    this.#settling = setTimeout(() => (this.#attempt = 0), SETTLED);
    // What was on its way to the former socket may still come; it is told `elsewhere` after the last of it.
    const former = this.#retiring;
    setTimeout(() => former && this.#dismiss(former), 2000);
    this.#become({ name: "connected" });
    this.#on.hello(frame, resumed, news);
    this.#flush();
  }

  #status(current, state) {
    if (!current) {
      if (state === "elsewhere") this.#dismiss(this.#retiring); // elsewhere is here
      return;
    }
    if (state === "reconnecting") this.#become({ name: "modelling" });
    if (state === "live") this.#become({ name: "connected" });
    if (state === "elsewhere") this.#become({ name: "elsewhere" });
  }

  // ---- ends

  #lost(socket, code, reason) {
    if (socket !== this.#socket) return;
    this.#abandon(socket);
    this.#socket = null;
    this.#ready = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#settling);
    clearTimeout(this.#probe);
    this.#probe = 0;
    if (this.#retiring) this.#dismiss(this.#retiring);
    if (this.#unconfirmed.length) this.#on.doubtful(this.#unconfirmed.splice(0));

    // Two pages that take one conversation from each other by turns would never stop.
    if (this.state.name === "elsewhere") return;
    if (code in REFUSALS) return this.#become({ name: "ended", reason: reason || REFUSALS[code] });
    if (code === 1000 || (code === 4408 && /idle/i.test(reason))) return this.#become({ name: "asleep" });
    if (code === 1011 && ++this.#failures >= MAX_FAILURES) {
      return this.#become({ name: "ended", reason: reason || "The agent cannot be reached." });
    }
    // Exponential backoff with full jitter: any moment up to the bound, so that the thousand pages which one restart
    // cut off do not all come back in the same instant.
    const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempt++);
    this.#timer = setTimeout(() => this.open(), delay);
    this.#become({ name: "waiting", delay });
  }

  // Makes room for a new socket, keeping the former one listening if it works.
  #retire() {
    const socket = this.#socket;
    clearTimeout(this.#settling);
    if (this.#retiring) this.#dismiss(this.#retiring);
    if (socket && this.#ready && socket.readyState === WebSocket.OPEN && this.state.name !== "elsewhere") {
      this.#retiring = socket;
    } else if (socket) this.#abandon(socket);
    this.#socket = null;
  }

  #dismiss(socket) {
    if (socket === this.#retiring) this.#retiring = null;
    if (socket) this.#abandon(socket);
  }

  // Closes without waiting for an answer: a dead peer gives none, and onclose would come only after a long timeout.
  #abandon(socket) {
    socket.onmessage = socket.onclose = null;
    // Closing one that is not open yet would be reported in the console as an error.
    if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close(1000);
    else socket.close(1000);
  }

  // A connection can die without a word (a laptop that slept, a network that changed). The server's heartbeat would
  // have been heard by now; so ask, and give up on silence.
  #watch() {
    if (this.#ready && !this.#probe && performance.now() - this.#heard > this.#silence) this.#startProbe();
  }

  #startProbe() {
    if (this.#probe) return;
    const socket = this.#socket;
    this.sendControl("ping");
    this.#probe = setTimeout(() => this.#lost(socket, 0, "no answer"), PROBE_TIMEOUT);
  }

  #become(state) {
    // Whoever comes back from these comes back writing: nobody leaves a microphone open for hours.
    if (["elsewhere", "asleep", "ended"].includes(state.name)) this.#audio = false;
    this.state = state;
    this.#on.state(state);
  }
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
