// Rooms: several people talk with one agent, in the chat dialect.
//
// The hash of the address is the id of the room, so that a link leads into a room. The page joins the room over the
// socket, and reads the earlier messages over HTTP. Frames of the room that come during that request are held back, and
// those that the history has already are dropped.

import { isFinal } from "../clients/js/src/close_codes.js";
import { randomId } from "../clients/js/src/ids.js";
import { Texts } from "../clients/js/src/texts.js";
import { announce } from "./announcer.js";
import { sourceList } from "./bubbles.js";
import { Chat } from "./chat.js";
import { RoomBar } from "./demo-bar.js";
import { Composer } from "./demo-composer.js";
import { HistoryReader, lineOf } from "./demo-history.js";
import { Me } from "./demo-me.js";
import { Messages, setMeta } from "./demo-messages.js";
import { OlderReader } from "./demo-older.js";
import { RoomList } from "./demo-rooms.js";
import { showConnection, showTrip } from "./demo-state.js";
import { Expiry } from "./expiry.js";
import { plain } from "./markdown.js";
import { areTyping, People } from "./people.js";
import { whenRenewed } from "./token.js";
import { Typists, TypingSignal } from "./typing.js";
import { WaitingCards } from "./waiting.js";

const $ = (id) => document.getElementById(id);

// Where the page is. `room` is what it shows; the socket may be on its way there, or to another one.
let room = ""; // the id of the room that the page shows
let inside = false; // the socket is in `room`, and its history is shown: texts can be sent
let joining = ""; // the id of the room that the socket has asked for, until it is in
let creating = false; // the socket has asked for a new room

// The state of the room.
let count = 0; // messages that are shown; a different count of the server shows that one was missed; NaN: not known
let answer = null; // the answer that is being given: {node, chunks}; it is no message before its first chunk

let passing = false; // the problem that is shown is over when the page has joined the room
const texts = new Texts(); // each also has `node`, and `taken`: the server has it in its queue
const connections = new Set(); // the ids of the connections that this page has had

const people = new People();
const me = new Me(() => chat.renew());
const messages = new Messages($("messages"));
const typists = new Typists((ids) => ($("typing").textContent = areTyping(ids.map((id) => people.whoIs(id)))));
const shown = (line) => lineOf(line, texts, me);
const unfinished = () => (answer?.chunks ? messages.exchange(answer.node) : null);
const unread = (text) => problem(text, true);
const reader = new HistoryReader({ read: showHistory, failed: goOnWithout, problem: unread, answer: unfinished });
const older = new OlderReader($("messages"), (lines) => messages.prepend(lines.map(shown)));
const cards = new WaitingCards({
  place: (card) => messages.add(card),
  send: (toolId, result) => inside && chat.send("tool_result", { tool_id: toolId, result }),
  announce,
});
const bar = new RoomBar(me, (why) => problem(why));
const rooms = new RoomList(() => chat.ready);
const chat = new Chat(() => me.address, { state: showState, trip: showTrip, frame: take });
const typing = new TypingSignal((type) => Boolean(room) && chat.send(type));

const composer = new Composer({
  typed(text) {
    chat.wake();
    typing.changed(text);
  },
  problem: (text) => problem(text),
  send: write,
  changed: update,
});
const expiry = new Expiry(problem);

// ---- the connection

// Somebody who was invited may have been invited to more since: a new socket tells.
whenRenewed(() => (me.role ? chat.renew() : update()));

function showState({ name, reason }) {
  showConnection(name);
  if (name === "ended") problem(reason);
  if (!chat.ready) {
    expiry.over();
    inside = creating = false;
    reader.drop();
    for (const { node } of texts.unconfirmed) setMeta(node, "Waiting to be sent");
  }
  update();
}

// ---- frames

function take(frame) {
  // These are answers to this page or about tools, and not part of the room's history.
  const isReply = ["session_created", "session_joined", "status", "error"].includes(frame.type);
  if (isReply || "tool_id" in frame || frame.session_id !== room || !reader.hold(frame)) receive(frame);
}

function receive(frame) {
  switch (frame.type) {
    case "connected":
      connections.add(frame.connection_id);
      typing.reset();
      $("model").textContent = frame.server_info.model;
      return enter();
    case "session_created":
    case "session_joined":
      return entered(frame);
    case "status":
      return queued(frame);
    case "ack":
      return placeText(texts.confirm(frame.id));
    case "response_start":
      placeText(texts.find(frame.id));
      return startAnswer();
    case "chunk":
      return addChunk(frame);
    case "response_complete":
      return completeAnswer(frame);
    case "tool_start":
      return cards.show(frame);
    case "tool_complete":
      return cards.done(frame);
    case "session_update":
      return updated(frame);
    case "token_expiring":
      return expiry.soon(frame.expires_in);
    case "error":
      return failed(frame);
  }
}

// A text of this page waits for its turn, or is being answered now.
function queued({ id, message }) {
  const text = texts.find(id);
  if (!text) return;
  text.taken = true;
  setMeta(text.node, message);
}

// A text of this page is in the conversation now. It may not be stored yet.
function placeText(text) {
  if (!text) return;
  setMeta(text.node, "");
  if (text.placed) return;
  text.placed = true;
  messages.place(text.node);
  count++;
}

// Does nothing if the history has shown the beginning of the answer.
function startAnswer() {
  answer ??= { node: messages.addMessage("agent", ""), chunks: 0 };
}

function addChunk({ text, chunk_number, is_final }) {
  if (is_final || chunk_number <= answer?.chunks) return;
  startAnswer();
  if (!answer.chunks) {
    messages.place(answer.node);
    count++;
  }
  answer.chunks = chunk_number;
  messages.append(answer.node, text);
}

function completeAnswer({ full_response: text, interrupted, message_count, grounding = {} }) {
  if (answer?.chunks) {
    messages.complete(answer.node, text, sourceList(grounding));
    if (interrupted) setMeta(answer.node, "Interrupted");
    announce(`Agent: ${plain(text)}`);
    bar.title.answered();
  } else answer?.node.remove(); // the agent said nothing
  answer = null;
  if (count < message_count || count > message_count) load(); // something was missed
  rooms.refresh();
}

function updated({ update_type, connection_id, typing: isTyping, message, message_count, name }) {
  people.heard({ connection_id, name });
  const who = people.whoIs(connection_id);
  const isOwn = connections.has(connection_id); // a former connection of this page
  switch (update_type) {
    case "user_typing":
      return typists.set(connection_id, isTyping && !isOwn);
    case "message_added":
      if (message_count <= count) return; // the history that was just read has it
      if (isOwn || message_count > count + 1) return load(); // to get its id, or what was missed
      messages.addMessage("other", message, who);
      texts.count(message);
      count++;
      announce(`${who}: ${message}`);
      break;
    case "user_joined":
      messages.note(`${who} came in.`);
      break;
    case "user_disconnected":
      typists.set(connection_id, false);
      if (!isOwn) messages.note(`${who} left.`);
      break;
    case "session_rewound": // those that still wait are told again
      cards.clear();
      return load();
    case "answer_shortened":
      return load();
    case "session_cleared":
      empty();
      messages.note("The room was cleared: the agent remembers nothing of what was said.");
      break;
    case "session_deleted":
      leave("The room was deleted.");
      messages.note("The room was deleted.");
      break;
  }
  rooms.refresh();
}

function failed(frame, { code, message, id } = frame) {
  if (isFinal(code)) texts.fail();
  if (texts.find(id)) return giveBack(message, [texts.find(id)]);
  if (cards.refused(frame)) return;
  problem(message, !inside);
  // There is no such room. Any other failure may pass: the next socket asks for the room again.
  if (!joining || id || !["unknown_session", "bad_data"].includes(code)) return;
  if (!inside) return leave(message);
  joining = ""; // the socket is still in the room where it was
  history.replaceState(null, "", `#${room}`);
  update();
}

// ---- the room

// Asks for the room that the address names.
function enter() {
  joining = location.hash.slice(1);
  if (joining) chat.send("join_session", { session_id: joining });
  else if (texts.unconfirmed.length) create();
  rooms.refresh();
  update();
}

function create() {
  if (!creating) chat.send("create_session");
  creating = true;
}

function entered({ type, session_id, ...told }) {
  me.entered(told);
  people.enter(told.names);
  cards.listens = me.listens;
  const isNew = type === "session_created";
  if (isNew) creating = false;
  else joining = "";
  if (session_id !== room) {
    problem("");
    for (const { id, node, taken, placed } of texts.unconfirmed) {
      if (!taken && !placed) continue;
      node.remove(); // the server has the text, and answers it in the room where it was written
      texts.remove(id);
    }
    // The new room was made for the texts that were written outside any room.
    if (room || !isNew) giveBack("You have entered another room.");
    room = session_id;
    inside = false;
    empty();
    if (location.hash.slice(1) !== room) history.pushState(null, "", `#${room}`);
  }
  cards.renew();
  if (isNew) sendTexts();
  else load();
  update();
  rooms.refresh();
}

// The history of the room is shown, so texts can be sent. Texts that a former socket has sent are sent again.
function sendTexts() {
  if (inside) return;
  inside = true;
  texts.unconfirmed.forEach(send);
}

function leave(why) {
  giveBack(why);
  room = joining = "";
  inside = false;
  empty();
  history.replaceState(null, "", location.pathname + location.search);
  update();
}

// Reads the history: after joining, after a lost connection, and after a message was missed.
const load = () => reader.read(room);

function showHistory({ history: lines, message_count, first }, frames) {
  for (const { node } of texts.takeHistory(lines)) node.remove(); // the history has it
  for (const { node, placed } of texts.unconfirmed) placed ? node.remove() : messages.wait(node);
  resetActivity();
  const nodes = messages.replace(lines.map(shown));
  for (const text of texts.unconfirmed) if (text.placed) text.node = nodes[lines.findIndex(({ id }) => id === text.id)];
  older.begin(room, first);
  const open = lines.findLastIndex((line) => line.open);
  if (open >= 0) answer = { node: nodes[open], chunks: lines[open].chunks };
  count = message_count; // more than the lines, if the history is long
  if (passing) problem("");
  // The last held frame whose count is at most that of the history: the history has it, and all frames before it.
  const isKnown = ({ message_count: known, type }) =>
    known < count || (known === count && !(answer && type === "response_complete"));
  goOn(frames.slice(frames.findLastIndex(isKnown) + 1));
}

function goOnWithout(frames) {
  count = NaN; // no comparison with NaN is true, so nothing counts as missed
  goOn(frames);
}

function goOn(frames) {
  sendTexts();
  frames.forEach(receive);
}

// The room was emptied, or the page is in another room.
function empty() {
  composer.writeIn(room);
  reader.drop();
  resetActivity();
  texts.forgetConversation();
  cards.clear();
  messages.empty();
  older.begin("", 1);
  count = 0;
}

// Forgets who is answering or typing.
function resetActivity() {
  answer = null;
  typists.clear();
}

// ---- what is shown around the messages

function update() {
  bar.show(room);
  $("hint").hidden = Boolean(room || texts.unconfirmed.length);
  me.show(chat.ready, chat.ready && (!joining || joining === room) && !composer.isEmpty);
  rooms.mark(room);
}

// `passes`: the problem is over when the page has joined the room.
function problem(text, passes = false) {
  if ($("problem").textContent !== text) $("problem").textContent = text; // setting it again would speak it again
  passing = passes;
}

// Puts texts that cannot be sent any more back into the box.
function giveBack(why, unsent = texts.unconfirmed) {
  if (!unsent.length) return;
  for (const { id, node } of unsent) {
    node.remove();
    texts.remove(id);
  }
  composer.giveBack(unsent.map(({ words }) => words));
  problem(`${why} Your unsent text is in the box again.`);
}

// ---- what the user does

function write(words) {
  typing.stopped();
  const text = texts.add(randomId(), words, { node: messages.addWaiting(words), taken: false });
  if (inside) send(text);
  else if (!room) create();
}

function send(text) {
  if (chat.send("chat", { session_id: room, message: text.words, id: text.id })) Object.assign(text, { tried: true, failed: false });
}

$("new").addEventListener("click", create);

addEventListener("hashchange", () => {
  const wanted = location.hash.slice(1);
  if (wanted === (joining || room)) return;
  if (wanted) {
    chat.wake();
    chat.hurry();
    enter();
  } else {
    leave("You have left the room.");
    chat.open(); // the chat dialect has no frame that leaves a room; a new socket is in none
  }
});

chat.open();
composer.begin();
