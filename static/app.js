// The page's main program: what the user does goes to the connection, what comes from it goes to the conversation
// and the loudspeaker.

import { stats, Voice } from "./audio.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Fallback } from "./fallback.js";
import { keptId, randomId, sessionStorageOrNothing } from "./identity.js";
import { Others } from "./others.js";
import * as view from "./view.js";

const MAX_TEXT = 32 * 1024; // bytes of UTF-8, the server's bound for one message
const LOUD = 0.35; // of a level of 1: somebody is speaking
const BUSY = 5000; // ms that it is still shown why one was not heard
const HANG = 500; // ms that they still count as speaking afterwards: the pauses between words

const { elements } = view;
const parameters = new URLSearchParams(location.search);
// A conversation belongs to a user. Without sign-in that is whoever has this browser; `?user=` says it otherwise, and
// `?session=` chooses among the user's conversations.
const user = parameters.get("user") || keptId("relay.user");
const session = parameters.get("session");
const store = sessionStorageOrNothing();

window.relayStats = stats; // counters only; for tests and the curious

// ---- what comes

const conversation = new Conversation(elements.messages, elements.latest, { announce: view.announce });

// Relative to the page, so it is found under any prefix; http → ws and https → wss.
const socketURL = new URL(`ws/${encodeURIComponent(user)}`, document.baseURI.replace(/^http/, "ws"));
if (session) socketURL.searchParams.set("session_id", session);

const connection = new Connection({
  url: socketURL,
  health: new URL("health", document.baseURI),
  debug: parameters.has("debug"),
  on: {
    state(state) {
      view.showState(state);
      if (!["connecting", "connected"].includes(state.name)) reveal();
      if (["asleep", "ended", "blocked"].includes(state.name)) {
        conversation.unexpect();
        conversation.hush();
        discarding = false;
        if (call) endCall(); // a page that nobody talks to must not go on recording
      }
      if (state.name !== "connecting" && !connected()) others.lost();
      goWithout(state.name === "blocked");
      update();
    },
    hello(frame) {
      view.showModel(frame);
      rehearsal(frame.rehearsal);
      others.greeted(frame.connections);
      if (stopOwed) stopOwed = !connection.sendControl("interrupt");
      update();
    },
    history(lines, ids, isAnother) {
      // In a conversation that is named, and so may be shared, nobody knows who wrote what this page has not written.
      const isOthers = ({ role, mine }) => role === "user" && session && !mine;
      conversation.history(lines.map((line) => ({ ...line, who: isOthers(line) ? "Somebody" : "" })), ids, isAnother);
      call?.voice.endOfTurn(); // what follows does not follow on from what was heard last
      discarding = false;
      reveal();
      update();
    },
    cleared(how, ids) {
      conversation.cleared(`This conversation was ${how}.`, ids);
      call?.voice.flush();
      discarding = false;
      update();
    },
    sent: (id) => conversation.left(id),
    unsent: (id) => conversation.waits(id),
    placed: (id) => conversation.placed(id),
    confirmed: (id) => conversation.confirmed(id),
    refused: (id) => conversation.refused(id),
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

function connected() {
  return ["connected", "modelling"].includes(connection.state.name);
}

// Shown only when it is known what there is to show: nothing moves any more then.
function reveal() {
  elements.messages.classList.add("ready");
}

function receive(frame) {
  if (frame.mime_type === "text/plain") return conversation.said(frame.data);
  const speaker = frame.mine ? "" : frame.connection_id;
  switch (frame.type) {
    case "message":
      others.writes(speaker, false);
      return conversation.wrote(frame.text, nameOf(speaker));
    case "transcript":
      return conversation.heard(frame.text, frame.final, { speaker, who: speaker && nameOf(speaker) });
    case "presence":
      return others.present(frame);
    case "typing":
      if (speaker) others.writes(speaker, frame.typing);
      return;
    case "tool_start":
      return conversation.toolStarted(frame);
    case "tool_complete":
      return conversation.toolCompleted(frame);
    case "dropped":
      return conversation.lost(frame.direction, frame.audio_ms);
    case "error":
      if (frame.code === "busy") return busy(frame.message);
      if (!frame.id) conversation.unexpect(); // it is not about one text: nothing will be answered
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

// Told again and again while it lasts, and shown once.
let busyFor = 0;

function busy(message) {
  if (!busyFor) view.notice("busy", message);
  clearTimeout(busyFor);
  busyFor = setTimeout(() => {
    busyFor = 0;
    view.notice("busy");
  }, BUSY);
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

// ---- the others

const others = new Others({
  send: (type) => connection.sendControl(type),
  on: { here: view.showHere, announce: view.announceHere, writing: view.showWriting },
});

// With several others, they are told apart by the beginnings of their connections' ids.
function nameOf(speaker) {
  if (!parameters.get("user")) return "You, in another window"; // nobody else knows this user's name
  return others.here > 2 ? `Somebody else (${speaker.slice(0, 4)})` : "Somebody else";
}

// ---- writing

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
  others.stopped();
  const id = randomId();
  conversation.typed(id, text, !connected() && !without);
  if (without) sayBeside(id, text);
  else connection.sendText(id, text);
  return true;
}

elements.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (write(elements.text.value)) elements.text.value = "";
  view.fitText();
  view.focusText();
});

elements.text.addEventListener("input", () => {
  view.fitText();
  others.wrote(elements.text.value);
});
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

elements.retry.addEventListener("click", () => connection.retry());

// ---- without a WebSocket

let without = false;
let beside = false; // something was said that the conversation does not know of

const fallback = new Fallback({
  url: new URL("api/v1/chat", document.baseURI),
  // The guest's own conversation is the same one here and there.
  session: user === "guest" && session ? session : keptId("relay.fallback"),
  on: {
    sent(id) {
      conversation.left(id);
      update();
    },
    refused: (id) => conversation.refused(id),
    message(frame) {
      receive(frame);
      update();
    },
    idle() {
      connection.resume();
      update();
    },
  },
});

function sayBeside(id, text) {
  beside = true;
  connection.pause();
  fallback.send(id, text);
}

function goWithout(now) {
  if (now === without) return;
  if (beside) {
    const text = "What was written above stays in a conversation of its own: the agent does not know it here.";
    conversation.note("beside", text);
  }
  without = conversation.aside = now;
  beside = false;
  view.showAudio(now ? "Audio needs a WebSocket, and none gets through from here." : "");
  view.notice(
    "without",
    now &&
      "No WebSocket gets through from here. You can go on in writing: each answer comes whole, in a conversation of " +
        "its own. Audio is off until a WebSocket gets through.",
  );
  if (!now) return;
  for (const { id, text } of connection.takeUntried()) sayBeside(id, text);
}

// ---- stopping an answer

// After a stop, sound that was already on its way is thrown away, until the server confirms the end of that turn.
let discarding = false;
let stopOwed = false; // there was nobody to hear it

function stop() {
  if (fallback.busy) fallback.stop();
  else if (conversation.answering) {
    stopOwed = !connection.sendControl("interrupt");
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
  const { name } = connection.state;
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
  const stoppable = conversation.answering && connected() && !discarding;
  view.showStop(stoppable || fallback.busy || Boolean(call?.voice.playing));
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

view.fitText();
view.focusText();
connection.open();
