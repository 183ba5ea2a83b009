// The developer's drawer, at the bottom of the main page with `?debug`: what goes over the connection, and how long it
// takes. It shows what the client tells to everybody who sets its option `debug`.

import { here } from "./api.js";
import { copyButton } from "./copy.js";
import { button, element } from "./elements.js";
import { Timings } from "./timings.js";

const KEPT = 300; // frames
const EVENTS = 30; // turns, and losses of the connection

// Invariant: the list shows the last `KEPT` frames, or, while it is paused, those that were there when it was.
export class Drawer {
  #live;
  #stats;
  #frames = []; // the last ones, oldest first
  #fresh = []; // of them, those that are not in the list yet
  #sums = { up: sum(), down: sum() };
  #timings = new Timings();
  #run = "";
  #isPaused = false;
  #isDue = false; // it is drawn before the next picture
  #drawer = element("details", "debug");
  #brief = element("span", "brief");
  #facts = element("dl", "facts");
  #turns = list("Turns", "No turn yet.");
  #losses = list("Losses of the connection", "None.");
  #list = list("Frames", "No frame yet.");

  // `stats`: the counters of sound.
  constructor(stats) {
    this.#stats = stats;
    const style = element("link");
    style.rel = "stylesheet";
    style.href = here("static/debug.css");
    document.head.append(style);

    const summary = element("summary", "", "Developer");
    summary.append(this.#brief);
    this.#list.classList.add("frames");
    const body = element("div", "panes");
    const left = element("div", "pane");
    left.append(this.#facts, title("Turns"), this.#turns, title("Losses of the connection"), this.#losses);
    const right = element("div", "pane");
    right.append(this.#buttons(), this.#list);
    body.append(left, right);
    this.#drawer.append(summary, body);
    this.#drawer.open = matchMedia("(min-width: 48rem) and (min-height: 40rem)").matches; // a phone has no room for it
    this.#drawer.addEventListener("toggle", () => this.#draw());
    const aside = element("aside");
    aside.setAttribute("aria-label", "Developer");
    aside.append(this.#drawer);
    document.body.append(aside);
  }

  watch(live) {
    this.#live = live;
    live.on("*", (message) => this.#see(message));
  }

  #see(message) {
    switch (message.type) {
      case "frame":
        this.#count(message);
        break;
      case "closed": {
        const why = message.reason && `, “${message.reason}”`;
        add(this.#losses, `${clock(message.at)} ${message.code}${why}`, EVENTS);
        break;
      }
      case "hello":
        this.#run = "live";
        break;
      case "turn_end":
        add(this.#turns, this.#timings.ended(message), EVENTS);
        break;
      default:
        this.#timings.see(message);
    }
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => this.#draw());
  }

  #count(frame) {
    const { frames, sound, bytes } = this.#sums[frame.direction];
    const isSound = !frame.text;
    this.#sums[frame.direction] = { frames: frames + 1, sound: sound + Number(isSound), bytes: bytes + frame.bytes };
    if (isSound) return;
    const said = parsed(frame.text);
    this.#timings.saw(frame.direction, said);
    if (said.type === "status") this.#run = said.state;
    this.#frames.push({ ...frame, kind: kindOf(said) });
    this.#fresh.push(this.#frames.at(-1));
    if (this.#frames.length > KEPT) this.#frames.shift();
    if (this.#fresh.length > KEPT) this.#fresh.shift();
  }

  // ---- what is shown

  #draw() {
    this.#isDue = false;
    const { connection } = this.#live.state;
    const { up, down } = this.#sums;
    this.#brief.textContent = `${connection.name} · ↑ ${up.frames} ↓ ${down.frames}`;
    if (!this.#drawer.open) return;
    const { playedSamples, underruns, flushedSamples } = this.#stats;
    const seconds = (samples) => `${(samples / 24000).toFixed(1)} s`;
    this.#showFacts({
      Connection: connection.name + (connection.reason ? `: ${connection.reason}` : ""),
      Session: this.#live.state.sessionId,
      Run: [this.#run, this.#live.state.model].filter(Boolean).join(", "),
      "Round trip": this.#timings.roundTrip,
      Sent: told(up),
      Received: told(down),
      Played: `${seconds(playedSamples)}, ${underruns} gaps, ${seconds(flushedSamples)} thrown away`,
    });
    if (!this.#isPaused) this.#showFrames();
  }

  #showFacts(facts) {
    if (!this.#facts.children.length) {
      for (const name of Object.keys(facts)) this.#facts.append(element("dt", "", name), element("dd"));
    }
    Object.values(facts).forEach((value, place) => {
      const shown = this.#facts.children[2 * place + 1];
      const text = value || "–";
      if (shown.textContent !== text) shown.textContent = text;
    });
  }

  #showFrames() {
    const list = this.#list;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    for (const frame of this.#fresh) add(list, row(frame), KEPT);
    this.#fresh = [];
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  #buttons() {
    const pause = button("Pause", "small-button", () => {
      this.#isPaused = !this.#isPaused;
      pause.setAttribute("aria-pressed", String(this.#isPaused));
      this.#draw();
    });
    pause.setAttribute("aria-pressed", "false");
    const clear = button("Clear", "small-button", () => {
      this.#frames = [];
      this.#fresh = [];
      this.#list.replaceChildren();
    });
    const bar = element("div", "debug-bar");
    bar.append(
      title("Frames"),
      button("Ping", "small-button", () => this.#live.ping()),
      pause,
      clear,
      copyButton("Copy the frames", () => JSON.stringify(this.#frames, null, 1)),
    );
    return bar;
  }
}

const title = (text) => element("h2", "", text);

function sum() {
  return { frames: 0, sound: 0, bytes: 0 };
}

const told = ({ frames, sound, bytes }) => `${frames} frames, ${sound} of them sound, ${size(bytes)}`;

const size = (bytes) => (bytes < 10_000 ? `${bytes} B` : `${Math.round(bytes / 1024)} KiB`);

// The time of day, with milliseconds.
function clock(at) {
  const date = new Date(at);
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

function kindOf(said) {
  return said.type ?? said.mime_type ?? ["interrupted", "turn_complete"].find((name) => said[name]) ?? "frame";
}

function row({ direction, at, kind, bytes, text }) {
  const details = element("details");
  const summary = element("summary");
  const arrow = element("span", direction, direction === "up" ? "↑" : "↓");
  arrow.setAttribute("role", "img");
  arrow.setAttribute("aria-label", direction === "up" ? "sent" : "received");
  const [time, length] = [clock(at), size(bytes)].map((value) => element("span", "at", value));
  summary.append(time, arrow, element("span", "kind", kind), length);
  details.append(summary);
  // Made when somebody wants to see it.
  const unfold = () => details.append(element("pre", "", JSON.stringify(parsed(text), null, 2)));
  details.addEventListener("toggle", unfold, { once: true });
  return details;
}

// A list that can be scrolled with the keyboard. `none` is shown while it is empty.
function list(label, none) {
  const made = element("ol");
  made.setAttribute("aria-label", label);
  made.tabIndex = 0;
  made.dataset.none = none;
  return made;
}

// Adds an item; of more than `most`, the first one goes.
function add(list, what, most) {
  const item = element("li");
  item.append(what);
  list.append(item);
  if (list.children.length > most) list.firstElementChild.remove();
}
