// The main page: it passes the user's actions to the connection, and the server's messages to the conversation and the
// loudspeaker.

import { announce } from "./announcer.js";
import { here } from "./api.js";
import { stats } from "./audio.js";
import { Call } from "./call.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Expiry } from "./expiry.js";
import { Fallback } from "./fallback.js";
import { keptId, randomId, sessionStorageOrNothing } from "./identity.js";
import { OlderMessages } from "./older.js";
import { Others } from "./others.js";
import { People } from "./people.js";
import { bytesOf, MAX_TEXT, sendOnEnter } from "./textbox.js";
import { isSignedIn, whenRenewed } from "./token.js";
import { Typists, TypingSignal } from "./typing.js";
import * as view from "./view.js";
import { WaitingCards } from "./waiting.js";

const BUSY = 5000; // ms for which a refusal as "busy" is shown

const { elements } = view;
const parameters = new URLSearchParams(location.search);
// A conversation belongs to a user. Without a token, each browser has its own random user id, and `?user=` names another
// user; with one (see token.js), the server knows the user from it. `?session=` names one of the user's conversations.
const user = parameters.get("user") || keptId("relay.user");
const session = parameters.get("session");
const store = sessionStorageOrNothing();

window.relayStats = stats; // counters only, for tests and for the console

// ---- messages from the server

const conversation = new Conversation(elements.messages, elements.latest, { announce });

const waiting = new WaitingCards({
  place: (item) => conversation.card(item),
  send: (toolId, result) => connection.sendToolResult(toolId, result),
  announce,
});

const older = new OlderMessages(elements.messages, { ask: (place) => connection.askOlder(place), announce });

const socketURL = new URL(here(`ws/${encodeURIComponent(user)}`).href.replace(/^http/, "ws")); // and https → wss
if (session) socketURL.searchParams.set("session_id", session);
const chosenName = parameters.get("name");
if (chosenName) socketURL.searchParams.set("name", chosenName);

const connection = new Connection({
  url: socketURL,
  health: here("ready"),
  debug: parameters.has("debug"),
  on: {
    state(state) {
      view.showState(state);
      if (!["connecting", "connected"].includes(state.name)) reveal();
      if (["asleep", "ended", "blocked"].includes(state.name)) {
        conversation.unexpect();
        conversation.stopHearing();
        discarding = false;
        call.end(); // a page that is not in use must not go on recording
      }
      if (state.name !== "connecting" && !connected()) {
        others.lost();
        typists.clear();
        expiry.over();
      }
      goWithout(state.name === "blocked");
      update();
    },
    hello(frame) {
      view.showModel(frame);
      me = { name: frame.name ?? "", role: frame.role ?? "" };
      const listens = me.role === "listen";
      view.showListening(listens);
      waiting.listens = listens;
      if (listens) call.end();
      people.enter(frame.names);
      call.pushToTalk = Boolean(frame.push_to_talk);
      waiting.renew();
      older.reset();
      rehearsal(frame.rehearsal);
      others.count(frame.connections);
      typists.clear();
      typing.reset();
      if (stopOwed) stopOwed = !connection.sendControl("interrupt");
      update();
    },
    history(lines, { ids, isAnother, older: place }) {
      older.clear();
      conversation.history(lines.map(withAuthor), ids, isAnother);
      older.begin(place);
      call.voice?.endOfTurn(); // the next sound does not continue the last one
      discarding = false;
      reveal();
      update();
    },
    older: (lines, place) => older.show(lines.map(withAuthor), place),
    cleared(how, ids) {
      older.clear();
      conversation.cleared(`This conversation was ${how}.`, ids);
      waiting.clear();
      call.voice?.flush();
      discarding = false;
      update();
    },
    sent: (id) => conversation.sent(id),
    unsent: (id) => conversation.unsent(id),
    placed: (id) => conversation.placed(id),
    confirmed: (id) => conversation.confirmed(id),
    refused: (id) => conversation.refused(id),
    sound(samples) {
      stats.receivedFrames++;
      stats.receivedAudioBytes += samples.byteLength;
      if (!discarding) call.voice?.play(samples);
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

// Shows the conversation. It is hidden until the history is known, so that nothing moves.
function reveal() {
  elements.messages.classList.add("ready");
}

let me = { name: "", role: "" }; // as the server has told

// A conversation may be shared that is named in the address, or to which the user was invited: a text without a name that
// this page has not written may be another user's.
function withAuthor(line) {
  if (line.role !== "user" || line.mine || (me.name && line.name === me.name)) return { ...line, who: "" };
  return { ...line, who: line.name || (session || me.role ? "Somebody" : "") };
}

function receive(frame) {
  if (frame.mime_type === "text/plain") return conversation.addToAnswer(frame.data);
  const speaker = frame.mine ? "" : frame.connection_id;
  people.heard(frame);
  switch (frame.type) {
    case "message":
      typists.set(speaker, false);
      return conversation.othersText(frame.text, nameOf(speaker, frame.name));
    case "transcript":
      return conversation.heard(frame.text, frame.final, { speaker, who: speaker && nameOf(speaker, frame.name) });
    case "presence":
      for (const id of frame.left) typists.set(id, false);
      return others.count(frame.connections);
    case "typing":
      if (speaker) typists.set(speaker, frame.typing);
      return;
    case "tool_start":
      if (!frame.pending) return conversation.toolStarted(frame);
      conversation.toolAsks(frame.arguments?.originalFunctionCall?.id);
      return waiting.show(frame);
    case "tool_complete":
      return waiting.done(frame) || conversation.toolCompleted(frame);
    case "token_expiring":
      return expiry.soon(frame.expires_in);
    case "dropped":
      return conversation.lost(frame.direction, frame.audio_ms);
    case "error":
      if (frame.code === "busy") return busy(frame.message);
      if (frame.code === "history_failed") return older.failed(frame.message);
      if (waiting.refused(frame)) return;
      if (!frame.id) conversation.unexpect(); // the error is not about one text, so no answer will come
      return conversation.note("error", frame.message);
  }
  if (frame.interrupted || frame.turn_complete) {
    discarding = false;
    if (frame.interrupted) {
      // The model is ahead of the loudspeaker: an answer that is complete may still be playing.
      if (!conversation.answering && call.voice?.playing) conversation.markInterrupted();
      call.voice?.flush();
    } else call.voice?.endOfTurn();
    conversation.ended({ interrupted: Boolean(frame.interrupted), aloud: call.active, grounding: frame.grounding });
  }
}

// The server repeats this error as long as somebody else speaks; the notice is shown once.
let busyTimer = 0;

function busy(message) {
  if (!busyTimer) view.notice("busy", message);
  clearTimeout(busyTimer);
  busyTimer = setTimeout(() => {
    busyTimer = 0;
    view.notice("busy");
  }, BUSY);
}

function rehearsal(rehearsing) {
  if (!rehearsing || store.getItem("relay.rehearsal") === "known") return view.notice("rehearsal");
  if (document.querySelector('#notice [data-kind="rehearsal"]')) return;
  view.notice(
    "rehearsal",
    [
      "This is the offline rehearsal agent: it repeats what it hears. For a real agent, set ",
      view.code("GOOGLE_API_KEY"),
      " in ",
      view.code(".env"),
      " and restart. If you have, the server’s log says what is missing.",
    ],
    { onDismiss: () => store.setItem("relay.rehearsal", "known") },
  );
}

// ---- the others

const people = new People();
const others = new Others({
  here: (count) => view.showHere(count, people.here),
  announce: (count) => view.announceHere(count, people.here),
});
const typists = new Typists((ids) => view.showWriting(ids.map((id) => people.nameOf(id))));
const typing = new TypingSignal((type) => connection.sendControl(type));

// If there are several others, the beginnings of their connection ids tell them apart.
function nameOf(speaker, name) {
  if (name && name !== me.name) return name;
  if (name || (!parameters.get("user") && !isSignedIn())) return "You, in another window"; // nobody else knows this user's name
  return others.here > 2 ? `Somebody else (${speaker.slice(0, 4)})` : "Somebody else";
}

// Somebody who was invited to listen may have been invited to write since: a new socket tells.
whenRenewed(() => me.role === "listen" && connection.open());

const expiry = new Expiry((text) => view.notice("token", text));

// ---- writing

function write(text) {
  text = text.trim();
  if (!text) return false;
  const size = bytesOf(text);
  if (size > MAX_TEXT) {
    const [has, may] = [Math.ceil(size / 1024), MAX_TEXT / 1024];
    view.notice("text", `This message has ${has} KiB; at most ${may} are allowed. Send it in parts.`);
    return false;
  }
  view.notice("text");
  typing.stopped();
  const id = randomId();
  conversation.typed(id, text, !connected() && !without);
  if (without) sendBeside(id, text);
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
  typing.changed(elements.text.value);
});
sendOnEnter(elements.text, elements.send);
// A press on Send must not take the focus: on a phone the keyboard would close and open again.
elements.send.addEventListener("pointerdown", (event) => event.preventDefault());

elements.messages.addEventListener("click", ({ target }) => {
  if (!target.matches(".suggestion")) return;
  write(target.textContent);
  view.focusText();
});

elements.retry.addEventListener("click", () => connection.retry());

// ---- without a WebSocket

let without = false; // no WebSocket gets through: texts are sent over HTTP, to a separate conversation
let beside = false; // a text was sent so since `without` was set

const fallback = new Fallback({
  url: here("api/v1/chat"),
  // Without a token, there are only the guest's conversations over HTTP. If this is the guest's page, it uses the same
  // conversation.
  session: (user === "guest" || isSignedIn()) && session ? session : keptId("relay.fallback"),
  on: {
    sent(id) {
      conversation.sent(id);
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

function sendBeside(id, text) {
  beside = true;
  connection.pause();
  fallback.send(id, text);
}

function goWithout(now) {
  if (now === without) return;
  if (beside) {
    const text = "The messages above are in a separate conversation: the agent does not know them here.";
    conversation.note("beside", text);
  }
  without = conversation.aside = now;
  beside = false;
  view.showAudio(now ? "Audio needs a WebSocket, and none gets through from here." : "");
  view.notice(
    "without",
    now &&
      "No WebSocket gets through from here. You can go on in writing, in a separate conversation; each answer comes " +
        "whole. Audio is off until a WebSocket gets through.",
  );
  if (!now) return;
  for (const { id, words } of connection.takeUntried()) sendBeside(id, words);
}

// ---- stopping an answer

// After a stop, sound that was already on its way is thrown away until the server confirms the end of that turn.
let discarding = false;
let stopOwed = false; // a stop has to be sent as soon as there is a connection

function stop() {
  if (fallback.busy) fallback.stop();
  else if (conversation.answering) {
    stopOwed = !connection.sendControl("interrupt");
    discarding = true;
  } else if (call.voice?.playing) conversation.markInterrupted();
  call.voice?.flush();
  update();
}

elements.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !elements.stop.hidden && !event.isComposing) stop();
});

// ---- the call

const call = new Call({
  sound: (buffer) => connection.sendSound(buffer),
  started: () => connection.open(true),
  // The user may be muted in the middle of a sentence: the server must not wait for the rest of it.
  muted: () => connection.sendControl("audio_end"),
  // With push to talk, the server is told when the user speaks.
  talking: (talking) => connection.sendControl(talking ? "activity_start" : "activity_end"),
  slow: () => conversation.note("slow", "The connection is too slow for your voice: parts of what you say are lost."),
  ended(wasReady) {
    discarding = false;
    if (wasReady && (connected() || ["connecting", "waiting"].includes(connection.state.name))) {
      connection.open(false); // the answer under way goes on in writing
    }
  },
  changed: () => update(),
});

// Updates the buttons and the call to the present state.
function update() {
  const stoppable = conversation.answering && connected() && !discarding;
  view.showStop((stoppable && me.role !== "listen") || fallback.busy || Boolean(call.voice?.playing));
  call.show(connection.state.name, conversation.expecting);
}

view.fitText();
view.focusText();
connection.open();
