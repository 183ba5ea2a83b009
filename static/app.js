// The main page: it passes the user's actions to the client (see clients/js), and shows what the client tells.

import { stats } from "../clients/js/src/audio.js";
import { connect } from "../clients/js/src/index.js";
import { LastActions } from "./actions.js";
import { announce } from "./announcer.js";
import { here } from "./api.js";
import { Call } from "./call.js";
import { Captions } from "./captions.js";
import { Conversation } from "./conversation.js";
import { Draft } from "./draft.js";
import { Expiry } from "./expiry.js";
import { offerExport } from "./export.js";
import { keptId, localStorageOrNothing, sessionStorageOrNothing } from "./identity.js";
import { OlderMessages } from "./older.js";
import { Others } from "./others.js";
import { People } from "./people.js";
import { Pictures } from "./pictures.js";
import { offerSettings, remember, remembered } from "./settings.js";
import { Showing } from "./showing.js";
import { Sidebar } from "./sidebar.js";
import { SoundSettings } from "./sound.js";
import { bytesOf, MAX_TEXT, sendOnEnter } from "./textbox.js";
import { PageTitle } from "./title.js";
import { currentToken, isSignedIn, whenRenewed } from "./token.js";
import { Typists, TypingSignal } from "./typing.js";
import * as view from "./view.js";
import { VoiceSettings } from "./voice.js";
import { WaitingCards } from "./waiting.js";

const BUSY = 5000; // ms for which a refusal as "busy" is shown

const { elements } = view;
const parameters = new URLSearchParams(location.search);
// A conversation belongs to a user. Without a token, each browser has its own random user id, and `?user=` names another
// user; with one (see token.js), the server knows the user from it. `?session=` names one of the user's conversations.
const user = parameters.get("user") || keptId("relay.user");
const session = parameters.get("session");
const isShared = user === "guest" && !isSignedIn(); // the guest is everybody
const hasAddress = Boolean(session && parameters.get("user")) && !isSignedIn(); // which others may have, too
const store = sessionStorageOrNothing();

window.relayStats = stats; // counters only, for tests and for the console

// The developer's drawer; without `?debug` it is not even loaded.
const drawer = parameters.has("debug") && new (await import("./debug.js")).Drawer(stats);

const live = connect({
  url: here("."),
  user,
  session: session ?? "",
  name: parameters.get("name") ?? "",
  token: currentToken,
  fallbackSession: keptId("relay.fallback"),
  storage: store,
  lasting: localStorageOrNothing(),
  debug: parameters.has("debug"),
});
if (drawer) drawer.watch(live);
whenRenewed((token) => live.renew(token));

// ---- what the client tells

const conversation = new Conversation(elements.messages, elements.latest, { announce });

const waiting = new WaitingCards({
  place: (item) => conversation.card(item),
  send: (toolId, result) => live.answerTool(toolId, result),
  announce,
});

const older = new OlderMessages(elements.messages, { ask: (place) => live.askOlder(place), announce });

live.on("state", (state) => {
  view.showState(state);
  if (!["connecting", "connected"].includes(state.name)) reveal();
  if (["asleep", "ended", "blocked"].includes(state.name)) {
    conversation.unexpect();
    conversation.stopHearing();
  }
  if (state.name !== "connecting" && !isConnected()) {
    others.lost();
    typists.clear();
    expiry.over();
  }
});

live.on("hello", (frame) => {
  view.showModel(frame);
  me = { name: frame.name ?? "", role: frame.role ?? "" };
  view.showListening(me.role === "listen");
  waiting.listens = me.role === "listen";
  people.enter(frame.names);
  waiting.renew();
  older.reset();
  rehearsal(frame.rehearsal);
  others.count(frame.connections);
  typists.clear();
  typing.reset();
});

live.on("history", ({ lines, ids, older: place }) => {
  older.clear();
  conversation.history(lines.map(withAuthor), ids);
  older.begin(place);
  reveal();
});

live.on("older", ({ lines, older: place }) => older.show(lines.map(withAuthor), place));

live.on("cleared", ({ how, ids }) => {
  older.begin("");
  conversation.cleared(`This conversation was ${how}.`, ids);
  waiting.clear();
});

live.on("rewound", ({ id }) => {
  waiting.clear(); // those that still wait are told again
  conversation.rewound(id);
});

live.on("written", ({ id, text, waiting, pictures }) => conversation.typed(id, text, waiting, pictures));
for (const fate of ["sent", "unsent", "placed", "confirmed", "refused", "unpictured"]) live.on(fate, ({ id }) => conversation[fate](id));

const isConnected = () => ["connected", "modelling"].includes(live.state.connection.name);

// Shows the conversation. It is hidden until the history is known, so that nothing moves.
function reveal() {
  elements.messages.classList.add("ready");
}

let me = { name: "", role: "" }; // as the server has told

// A conversation may be shared that has an address, or to which the user was invited: a text without a name that
// this page has not written may be another user's.
function withAuthor(line) {
  if (line.role !== "user" || line.mine || (me.name && line.name === me.name)) return { ...line, who: "" };
  return { ...line, who: line.name || (hasAddress || me.role ? "Somebody" : "") };
}

const speakerOf = ({ mine, connection_id: id }) => (mine ? "" : id);

live.on("text", ({ text }) => conversation.addToAnswer(text));

live.on("message", (frame) => {
  const speaker = speakerOf(frame);
  people.heard(frame);
  typists.set(speaker, false);
  conversation.othersText(frame.id, frame.text, nameOf(speaker, frame.name));
});

live.on("transcript", (frame) => {
  const speaker = speakerOf(frame);
  people.heard(frame);
  conversation.heard(frame.text, frame.final, { speaker, who: speaker && nameOf(speaker, frame.name) });
});

live.on("presence", (frame) => {
  people.heard(frame);
  for (const id of frame.left) typists.set(id, false);
  others.count(frame.connections);
});

live.on("typing", (frame) => {
  people.heard(frame);
  if (!frame.mine) typists.set(frame.connection_id, frame.typing);
});

live.on("tool_start", (frame) => {
  if (!frame.pending) return conversation.toolStarted(frame);
  conversation.toolAsks(frame.arguments?.originalFunctionCall?.id);
  waiting.show(frame);
});

live.on("tool_complete", (frame) => waiting.done(frame) || conversation.toolCompleted(frame));

live.on("turn_end", ({ interrupted, wasPlaying, grounding }) => {
  // The model is ahead of the loudspeaker: an answer that is complete may still be playing.
  if (interrupted && wasPlaying && !conversation.answering) conversation.markInterrupted();
  conversation.ended({ interrupted, aloud: call.active, grounding });
});

live.on("heard", ({ text }) => conversation.shortened(text));

// Who speaks with the agent hears that it has answered.
const title = new PageTitle();
for (const type of ["hello", "renamed", "cleared"]) live.on(type, () => (title.name = live.state.title));
live.on("turn_end", ({ interrupted }) => interrupted || live.state.call === "on" || title.answered());

live.on("token_expiring", ({ expires_in: seconds }) => expiry.soon(seconds));

live.on("dropped", ({ direction, audio_ms: milliseconds }) => conversation.lost(direction, milliseconds));

live.on("slow", () => conversation.note("slow", "The connection is too slow for your voice: parts of what you say are lost."));

live.on("error", (frame) => {
  if (frame.code === "busy") return busy(frame.message);
  if (frame.code === "history_failed" && older.failed(frame.message)) return;
  if (waiting.refused(frame)) return;
  if (!frame.id) conversation.unexpect(); // the error is not about one text, so no answer will come
  conversation.note("error", frame.message);
});

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
      "A rehearsal, offline: it repeats what it hears. For a real agent, set ",
      view.code("GOOGLE_API_KEY"),
      " in ",
      view.code(".env"),
      " and restart.",
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
const typing = new TypingSignal((type) => live.typing(type === "typing_start"));

// If there are several others, the beginnings of their connection ids tell them apart.
function nameOf(speaker, name) {
  if (name && name !== me.name) return name;
  if (name || (!parameters.get("user") && !isSignedIn())) return "You, in another window"; // nobody else knows this user's name
  return others.here > 2 ? `Somebody else (${speaker.slice(0, 4)})` : "Somebody else";
}

const expiry = new Expiry((text) => view.notice("token", text));

// ---- writing

const pictures = new Pictures({ tell: (text) => view.notice("picture", text), focusText: view.focusText, announce });

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
  return last.say(text, pictures);
}

function fill(text) {
  elements.text.value = text;
  view.fitText();
}

const last = new LastActions(live, {
  root: elements.messages,
  box: elements.text,
  write: fill,
  tell: (text) => view.notice("last", text),
});

elements.composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  await pictures.ready; // a large one may still be read, and belongs to this text
  if (write(elements.text.value)) fill(last.takeDraft());
  view.focusText();
});

elements.text.addEventListener("input", () => {
  view.fitText();
  typing.changed(elements.text.value);
});
sendOnEnter(elements.text, elements.send);
new Draft(elements.text, view.fitText).of(`${user} ${session ?? ""}`);
// A press on Send must not take the focus: on a phone the keyboard would close and open again.
elements.send.addEventListener("pointerdown", (event) => event.preventDefault());

elements.messages.addEventListener("click", ({ target }) => {
  if (!target.matches(".suggestion")) return;
  write(target.textContent);
  view.focusText();
});

elements.retry.addEventListener("click", () => live.retry());

// ---- without a WebSocket

live.on("beside", ({ active, used }) => {
  if (used) {
    const text = "The messages above are in a separate conversation: the agent does not know them here.";
    conversation.note("beside", text);
  }
  if (active) conversation.cutOff();
  conversation.aside = active;
  view.showAudio(active ? "Audio needs a WebSocket, and none gets through from here." : "");
  view.notice(
    "without",
    active &&
      "No WebSocket gets through from here. You can go on in writing, in a separate conversation; each answer comes " +
        "whole. Audio is off until a WebSocket gets through.",
  );
});

// ---- stopping an answer

function stop() {
  if (live.voice?.playing && !conversation.answering) conversation.markInterrupted();
  live.interrupt();
}

elements.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector(":modal")) return;
  if (!elements.stop.hidden) stop();
});

// ---- the call

const sound = new SoundSettings(live);
const call = new Call(live, { changed: () => update(), stop, useMode: (mode) => sound.useMode(mode) });
new Captions(live, remembered("captions", true), (areOn) => remember("captions", areOn));
new Showing(live);

// Updates the buttons and the call to the present state.
function update() {
  view.showStop(live.canInterrupt);
  call.show(live.state.connection.name, conversation.expecting);
  pictures.show(live.state);
  last.update();
}

live.subscribe(update);
offerSettings();
new VoiceSettings(live);
offerExport({ live, older, title: () => live.state.title, announce });
if (!isShared) new Sidebar({ live, user, session: session ?? "" });
view.fitText();
view.focusText();
