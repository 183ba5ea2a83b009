// The page's main program: what the user does goes to the connection, what comes from it goes to the conversation
// and the loudspeaker.

import { stats, Voice } from "./audio.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import * as view from "./view.js";

const MAX_TEXT = 32 * 1024; // bytes of UTF-8, the server's bound for one message
const LOUD = 0.35; // of a level of 1: somebody is speaking
const HANG = 500; // ms that they still count as speaking afterwards: the pauses between words

const { elements } = view;
const parameters = new URLSearchParams(location.search);
const user = whoAmI();
const store = sessionStorageOrNothing();

window.relayStats = stats; // counters only; for tests and the curious

// ---- what comes

const conversation = new Conversation(elements.messages, elements.latest, {
  announce: view.announce,
  resend: (id, text) => connection.sendText(id, text),
});

const connection = new Connection({
  // Relative to the page, so it is found under any prefix; http → ws and https → wss.
  url: new URL(`ws/${encodeURIComponent(user)}`, document.baseURI.replace(/^http/, "ws")),
  debug: parameters.has("debug"),
  on: {
    state(state) {
      view.showState(state);
      if (!["connecting", "connected"].includes(state.name)) elements.messages.classList.add("ready"); // see hello()
      if (state.name === "waiting" || state.name === "ended") conversation.unexpect();
      if (["elsewhere", "asleep", "ended"].includes(state.name)) {
        conversation.unexpect();
        if (call) endCall(); // a page that nobody talks to must not go on recording
      }
      if (!["connecting", "connected", "modelling"].includes(state.name)) {
        discarding = false;
        conversation.hush();
      }
      update();
    },
    hello(frame, resumed, news) {
      view.showModel(frame);
      discarding = false;
      if (!resumed) {
        conversation.missed(news);
        call?.voice.endOfTurn();
      }
      rehearsal(frame.rehearsal);
      elements.messages.classList.add("ready"); // shown only now, when no notice can push it down any more
      update();
    },
    sent: (id) => conversation.left(id),
    doubtful: (ids) => ids.forEach((id) => conversation.doubt(id)),
    sound(samples) {
      stats.receivedFrames++;
      stats.receivedAudioBytes += samples.byteLength;
      if (call && !discarding) call.voice.play(samples);
      update();
    },
    message(frame) {
      receive(frame);
      update();
    },
  },
});

function receive(frame) {
  if (frame.mime_type === "text/plain") return conversation.said(frame.data);
  switch (frame.type) {
    case "transcript":
      if (frame.role === "user") conversation.heard(frame.text, frame.final);
      return;
    case "tool_start":
      return conversation.toolStarted(frame);
    case "tool_complete":
      return conversation.toolCompleted(frame);
    case "dropped":
      return conversation.lost(frame.direction, frame.audio_ms);
    case "gap":
      return conversation.missed(true);
    case "error":
      conversation.unexpect();
      return conversation.note("error", frame.message);
  }
  if (frame.interrupted || frame.turn_complete) {
    discarding = false;
    if (frame.interrupted) {
      // The model is ahead of the loudspeaker: it may have finished saying what is still being heard.
      if (!conversation.answering && call?.voice.playing) conversation.markInterrupted();
      call?.voice.flush();
    } else call?.voice.endOfTurn();
    conversation.ended({ interrupted: Boolean(frame.interrupted), aloud: Boolean(call) });
  }
}

function rehearsal(rehearsing) {
  if (!rehearsing || store.getItem("relay.rehearsal") === "known") return view.notice("rehearsal");
  if (document.querySelector('#notice [data-kind="rehearsal"]')) return;
  view.notice(
    "rehearsal",
    [
      "This is the offline rehearsal agent: it repeats what it hears. For a real one, set ",
      view.code("GOOGLE_API_KEY"),
      " in ",
      view.code(".env"),
      " and restart. If you have, the server’s log says what is missing.",
    ],
    { onDismiss: () => store.setItem("relay.rehearsal", "known") },
  );
}

// ---- writing

let texts = 0;

function write(text) {
  text = text.trim();
  if (!text) return false;
  const size = new TextEncoder().encode(text).length;
  if (size > MAX_TEXT) {
    const [has, may] = [Math.ceil(size / 1024), MAX_TEXT / 1024];
    view.notice("text", `This message has ${has} KiB, and may have ${may}: send it in parts.`);
    return false;
  }
  view.notice("text");
  const id = ++texts;
  conversation.typed(id, text, !["connected", "modelling"].includes(connection.state.name));
  connection.sendText(id, text);
  return true;
}

elements.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (write(elements.text.value)) elements.text.value = "";
  view.fitText();
  view.focusText();
});

elements.text.addEventListener("input", view.fitText);
elements.text.addEventListener("keydown", (event) => {
  // While an input method is composing, Enter chooses a word (Safari tells so only by 229).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  elements.composer.requestSubmit();
});
// A press on Send must not take the focus: on a phone the keyboard would close and open again.
elements.send.addEventListener("pointerdown", (event) => event.preventDefault());

elements.messages.addEventListener("click", ({ target }) => {
  if (!target.matches(".suggestion")) return;
  write(target.textContent);
  view.focusText();
});

elements.elsewhere.addEventListener("click", () => connection.retry());
elements.retry.addEventListener("click", () => connection.retry());

// ---- stopping an answer

// After a stop, sound that was already on its way is thrown away, until the server confirms the end of that turn.
let discarding = false;

function stop() {
  if (conversation.answering) {
    connection.sendControl("interrupt");
    discarding = true;
  } else if (call?.voice.playing) conversation.markInterrupted();
  call?.voice.flush();
  update();
}

elements.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !elements.stop.hidden && !event.isComposing) stop();
});

// ---- the call

let call = null; // {voice, ready, since, loud, complained, timer, frame}

async function startCall() {
  const voice = new Voice();
  const mine = (call = { voice, ready: false, since: performance.now(), loud: -Infinity, complained: false });
  view.notice("microphone");
  view.showCall("asking");
  view.showMuted(false);
  mine.timer = setInterval(update, 100);
  update();
  voice.onframe = (buffer) => {
    if (voice.levels().input > LOUD) mine.loud = performance.now();
    const { byteLength } = buffer;
    const fate = connection.sendSound(buffer);
    if (fate === "sent") {
      stats.sentFrames++;
      stats.sentBytes += byteLength;
    } else if (fate === "dropped" && !mine.complained) {
      mine.complained = true;
      conversation.note("slow", "The connection is too slow for your voice: parts of what you say are lost.");
    }
  };
  voice.onend = () => endCall("The microphone went away, so audio was ended. You can go on in writing.");
  try {
    await voice.start();
  } catch (error) {
    if (call !== mine) return;
    endCall(error.message);
    return;
  }
  if (call !== mine) return; // ended while the browser was asking
  mine.ready = true;
  mine.since = performance.now();
  view.showCall("on");
  connection.open(true);
  drawLevels();
  update();
}

function endCall(why) {
  const { voice, ready, timer, frame } = call;
  call = null;
  clearInterval(timer);
  cancelAnimationFrame(frame);
  voice.stop();
  view.showCall("off");
  if (why) view.notice("microphone", why);
  discarding = false;
  // The answer under way goes on in writing.
  const name = connection.state.name;
  if (ready && ["connecting", "connected", "modelling", "waiting"].includes(name)) connection.open(false);
  update();
}

elements.audio.addEventListener("click", () => (call ? endCall() : startCall()));

elements.mute.addEventListener("click", () => {
  const muted = !call.voice.muted;
  call.voice.mute(muted);
  // Otherwise the server would go on waiting for the rest of a sentence that was cut off.
  if (muted) connection.sendControl("audio_end");
  view.showMuted(muted);
  update();
});

function drawLevels() {
  if (!call) return;
  view.showLevels(call.voice.levels());
  call.frame = requestAnimationFrame(drawLevels);
}

// Everything that follows from the present state, and from nothing else.
function update() {
  const connected = ["connected", "modelling"].includes(connection.state.name);
  view.showStop((conversation.answering && connected && !discarding) || Boolean(call?.voice.playing));
  if (call) view.showSpeaker(...speaking(), call.ready ? (performance.now() - call.since) / 1000 : 0);
}

function speaking() {
  if (!call.ready) return ["none", "Allow the microphone…"];
  if (connection.state.name === "modelling") return ["none", "Reconnecting…"];
  if (connection.state.name !== "connected") return ["none", "Connecting…"];
  if (call.voice.playing) return ["agent", "Agent is speaking"];
  if (call.voice.muted) return ["none", "You are muted"];
  if (performance.now() - call.loud < HANG) return ["user", "You are speaking"];
  if (conversation.expecting) return ["none", "Thinking…"];
  return ["none", "Listening"];
}

// ---- who this is

// A conversation belongs to a user. Without sign-in that is whoever has this browser; `?user=` says it otherwise.
function whoAmI() {
  const given = parameters.get("user");
  if (given) return given;
  // Not randomUUID(): browsers have that on secure origins only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const fresh = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const known = localStorage.getItem("relay.user") ?? fresh;
    localStorage.setItem("relay.user", known);
    return known;
  } catch {
    return fresh; // storage is switched off: the conversation lasts as long as the page
  }
}

function sessionStorageOrNothing() {
  try {
    return window.sessionStorage;
  } catch {
    return { getItem: () => null, setItem: () => {} };
  }
}

view.fitText();
view.focusText();
connection.open();
