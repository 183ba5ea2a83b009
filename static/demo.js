// Rooms: the chat dialect, `WS /ws`, in a page.
//
// The first half is the socket: it connects, comes back when it was lost, and measures how far away the server is. The
// second half is the page. Whatever anybody has said becomes text in it, never markup.

import { randomId } from "./identity.js";

// ---- the socket ------------------------------------------------------------------------------

const FIRST_DELAY = 500; // ms
const MAX_DELAY = 15000;
const PING_EVERY = 15000;
const PONG_TIMEOUT = 10000;
const HELLO_TIMEOUT = 15000; // for the first frame, from the beginning
const MAX_FAILURES = 6; // in a row, of an agent that says it failed

class Chat {
  #url;
  #on;
  #socket = null;
  #attempt = 0;
  #retry = 0;
  #pinging = 0;
  #pinged = 0;
  #overdue = 0;
  #failures = 0;
  ready = false;
  asleep = false;

  // `on` has state(name), with the names connecting · connected · waiting (for the next try) · asleep; trip(ms), how
  // long a ping took there and back; and frame(frame).
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
  }

  connect() {
    if (this.#socket) return;
    clearTimeout(this.#retry);
    this.asleep = false;
    this.#on.state("connecting");
    this.#socket = new WebSocket(this.#url);
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = ({ code }) => this.#lost(code);
    // A browser itself waits for minutes.
    this.#overdue = setTimeout(() => this.#lost(0), HELLO_TIMEOUT);
  }

  // A new socket is in no room: there is no frame that leaves one.
  renew() {
    this.#drop();
    this.connect();
  }

  send(type, fields = {}) {
    if (this.ready) this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  #receive(frame) {
    if (frame.type === "connected") {
      // Always the first frame.
      this.ready = true;
      clearTimeout(this.#overdue);
      this.#pinging = setInterval(() => {
        this.#attempt = 0; // it has lasted: the next backoff starts small again
        this.#ping();
      }, PING_EVERY);
      this.#on.state("connected");
      this.#ping();
    } else if (frame.type === "pong") {
      clearTimeout(this.#overdue);
      this.#on.trip(performance.now() - this.#pinged);
    } else if (frame.type === "chunk") this.#failures = 0; // the agent does work
    this.#on.frame(frame);
  }

  // A connection can die without a word: a server that does not answer is not there any more.
  #ping() {
    this.#pinged = performance.now();
    this.#overdue = setTimeout(() => this.#lost(0), PONG_TIMEOUT);
    this.send("ping");
  }

  #drop() {
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#socket = null;
    this.ready = false;
    clearInterval(this.#pinging);
    clearTimeout(this.#overdue);
  }

  #lost(code) {
    this.#drop();
    // Idle: nobody has said anything for long. Or the agent fails whatever is tried. Whoever goes on connects again.
    this.asleep = code === 4408 || (code === 1011 && ++this.#failures >= MAX_FAILURES);
    if (this.asleep) return this.#on.state("asleep");
    // Exponential backoff with full jitter: any moment up to the bound, or all the pages that one restart has cut off
    // would come back in the same instant.
    const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempt++);
    this.#retry = setTimeout(() => this.connect(), delay);
    this.#on.state("waiting");
  }
}

// ---- the page --------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const here = (path) => new URL(path, document.baseURI); // relative, so it is found under any prefix

const TYPING_PAUSE = 3000; // ms without a key: not typing any more
const REFRESH = 10000; // ms between two looks at the list of rooms
const ASK_TIMEOUT = 10000; // ms for an answer over HTTP
const RETRY = 5000; // ms until what could not be read is read again
const MAX_TEXT = 32 * 1024; // bytes of UTF-8
const STATES = { connecting: "Connecting…", connected: "Connected", waiting: "Reconnecting…", asleep: "Asleep" };

let room = ""; // the id of the session that the page shows
let inside = false; // the socket is in it, and it is known what was said there
let joining = ""; // the id of the one that it has asked for
let making = false; // it has asked for a new one
let count = 0; // messages that are shown; the server tells how many there are, so it is seen when one was missed
let answer = null; // the one that is being given: {node, chunks}; without any of its chunks it is no message yet
let held = null; // frames that came while the history was being read
let loads = 0; // how often it was: what comes of an earlier time counts for nothing
let passing = false; // the problem that is shown is over when the room is there
const own = new Map(); // id → text, of all that was written here
const pending = new Map(); // id → node, of what of it is not said yet: they stand below all others
const connections = new Set(); // ids of those that this page has had
const typists = new Set(); // connection ids

const chat = new Chat(here("ws").href.replace(/^http/, "ws"), {
  state(name) {
    $("state").dataset.state = name;
    $("state-text").textContent = STATES[name];
    if (!chat.ready) {
      inside = making = false;
      unhold();
      for (const node of pending.values()) meta(node, "Waiting to be sent");
    }
    update();
  },
  trip(ms) {
    $("state-text").textContent = `Connected · ${Math.max(1, Math.round(ms))} ms`;
  },
  frame(frame) {
    const isOfNow = ["session_created", "session_joined", "status", "error"].includes(frame.type);
    if (held && frame.session_id === room && !isOfNow) held.push(frame);
    else receive(frame);
  },
});

function receive(frame) {
  switch (frame.type) {
    case "connected":
      connections.add(frame.connection_id);
      $("model").textContent = frame.server_info.model;
      return enter();
    case "session_created":
    case "session_joined":
      return entered(frame);
    case "status": // how it stands with what was just written: it is being answered, or waits for others
      if (!pending.has(frame.id)) return;
      pending.get(frame.id).dataset.taken = "true";
      return meta(pending.get(frame.id), frame.message);
    case "ack":
      return settle(frame.id);
    case "response_start":
      settle(frame.id);
      return begins();
    case "chunk":
      return said(frame);
    case "response_complete":
      return completed(frame);
    case "session_update":
      return updated(frame);
    case "error":
      return failed(frame);
  }
}

// Unless it is there already, since the history has the beginning of it.
function begins() {
  answer ??= { node: add("agent", ""), chunks: 0 };
}

function said({ text, chunk_number, is_final }) {
  if (is_final || chunk_number <= answer?.chunks) return;
  begins();
  if (!answer.chunks) place(answer.node);
  answer.chunks = chunk_number;
  follow(() => textOf(answer.node).append(text));
}

function completed({ full_response: text, interrupted, message_count }) {
  if (answer?.chunks) {
    textOf(answer.node).textContent = text;
    if (interrupted) meta(answer.node, "Interrupted");
    announce(`Agent: ${text}`);
  } else answer?.node.remove(); // nothing was said
  answer = null;
  if (count < message_count || count > message_count) load(); // something was missed
  list();
}

function updated({ update_type, connection_id, typing, message, message_count }) {
  const who = `Guest ${connection_id?.slice(0, 4)}`;
  const isOwn = connections.has(connection_id); // through a former socket
  switch (update_type) {
    case "user_typing":
      return types(connection_id, typing && !isOwn);
    case "message_added":
      if (message_count <= count) return; // it is in the history that has just been read
      if (isOwn || message_count > count + 1) return load(); // which has the id, and what was missed
      place(add("other", message, who));
      announce(`${who}: ${message}`);
      break;
    case "user_joined":
      note(`${who} came in.`);
      break;
    case "user_disconnected":
      types(connection_id, false);
      if (!isOwn) note(`${who} left.`);
      break;
    case "session_cleared":
      empty();
      note("The room was cleared: the agent remembers nothing of what was said.");
      break;
    case "session_deleted":
      left("The room was deleted.");
      note("The room was deleted.");
      break;
  }
  list();
}

function failed({ code, message, id }) {
  if (pending.has(id)) return giveBack(message, [id]);
  problem(message, !inside);
  // There is no such room. What else goes wrong may pass: the next socket asks for it again.
  if (!joining || id || !["unknown_session", "bad_data"].includes(code)) return;
  if (!inside) return left(message);
  joining = ""; // the socket is still in the room where it was
  history.replaceState(null, "", `#${room}`);
  update();
}

// `passes`: when the room is there.
function problem(text, passes = false) {
  if ($("problem").textContent !== text) $("problem").textContent = text; // or it would be spoken again
  passing = passes;
}

// ---- the room

// Asks for the room that the address names: its hash is the id, so that a link leads into a room.
function enter() {
  joining = location.hash.slice(1);
  if (joining) chat.send("join_session", { session_id: joining });
  else if (pending.size) create();
  list();
  update();
}

function create() {
  if (!making) chat.send("create_session");
  making = true;
}

function entered({ type, session_id }) {
  const isNew = type === "session_created";
  if (isNew) making = false;
  else joining = "";
  if (session_id !== room) {
    problem("");
    for (const [id, node] of pending) {
      if (!node.dataset.taken) continue;
      node.remove(); // it is said in the room where it was written, and answered there
      pending.delete(id);
    }
    if (room || !isNew) giveBack("You have entered another room."); // in none, it is what this one was made for
    room = session_id;
    inside = false;
    empty();
    if (location.hash.slice(1) !== room) history.pushState(null, "", `#${room}`);
  }
  if (isNew) sendPending();
  else load();
  update();
  list();
}

// All is known of the room, and what waits can be sent. What has been before has the same id: it is said once.
function sendPending() {
  if (inside) return;
  inside = true;
  pending.forEach((_, id) => say(id));
}

function left(why) {
  giveBack(why);
  room = joining = "";
  inside = false;
  empty();
  history.replaceState(null, "", location.pathname + location.search);
  update();
}

// Reads what was said in the room: after coming in, after having been away, and where something was missed.
async function load() {
  unhold();
  const mine = loads;
  held = [];
  let session = null;
  let why = "";
  try {
    session = await ask("GET", `sessions/${room}`);
  } catch (error) {
    why = error.message;
  }
  if (mine !== loads) return; // the socket was lost meanwhile, or another room was entered
  let frames = held;
  held = null;
  if (session) {
    show(session);
    if (passing) problem("");
    // All is in the history already, up to the last frame that tells a count which it has.
    const isKnown = ({ type, message_count }) =>
      message_count < count || (message_count === count && !(answer && type === "response_complete"));
    frames = frames.slice(frames.findLastIndex(isKnown) + 1);
  } else count = NaN; // one goes on without it: nothing compares to NaN, so nothing looks as if it was missed
  sendPending();
  frames.forEach(receive);
  if (session || mine !== loads) return;
  problem(`What was said before can’t be read just now: ${why}`, true);
  setTimeout(() => mine === loads && load(), RETRY);
}

function unhold() {
  held = null;
  loads++;
}

function show({ history: lines, message_count }) {
  // What has arrived of one's own is there with its id. A server that was restarted knows no ids any more: there it is
  // a text that is there once more than it was shown.
  const ids = new Set(lines.map(({ id }) => id));
  const nameless = lines.filter(({ role, id }) => role === "user" && !id).map(({ text }) => text);
  for (const node of $("messages").querySelectorAll(".user:not(.waiting)")) strike(nameless, textOf(node).textContent);
  for (const id of pending.keys()) if (ids.has(id) || strike(nameless, own.get(id))) pending.delete(id);

  const texts = new Set(own.values());
  const isOwn = ({ id, text }) => (id ? own.has(id) : texts.has(text));
  const all = new DocumentFragment(); // in one piece, or the page would be laid out once a message
  follow(() => {
    empty();
    for (const line of lines) {
      const kind = line.role === "agent" ? "agent" : isOwn(line) ? "user" : "other";
      const node = all.appendChild(bubble(kind, line.text));
      if (line.open) answer = { node, chunks: line.chunks };
    }
    $("messages").prepend(all);
  });
  count = message_count; // of a very long history, the end is told
}

function strike(texts, text) {
  const at = texts.indexOf(text);
  if (at >= 0) texts.splice(at, 1);
  return at >= 0;
}

function empty() {
  unhold();
  $("messages").replaceChildren(...pending.values());
  count = 0;
  answer = null;
  typists.clear();
  types();
}

function update() {
  $("room-name").textContent = room ? `Room ${room}` : "No room yet";
  $("room-actions").hidden = !room;
  $("hint").hidden = Boolean(room || pending.size);
  $("window").href = $("speak").href = "";
  if (room) {
    $("window").href = `#${room}`;
    // The same session in the main page, by the live dialect: the rooms are the guest's.
    $("speak").href = here(`./?user=guest&session=${room}`);
  }
  $("new").disabled = $("join-button").disabled = !chat.ready;
  $("send").disabled = !chat.ready || (joining && joining !== room) || !$("text").value.trim();
  for (const link of $("rooms").querySelectorAll("a")) {
    if (link.hash.slice(1) === room) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// ---- messages

// `kind`: user (oneself), other or agent.
function bubble(kind, text, who = "") {
  const node = document.createElement("div");
  node.className = `message ${kind === "other" ? "user other" : kind}`;
  const inner = node.appendChild(document.createElement("div"));
  inner.className = "bubble";
  if (who) inner.append(line("who", who));
  inner.append(line("text", text));
  node.append(line("meta", ""));
  return node;
}

function add(kind, text, who) {
  const node = bubble(kind, text, who);
  follow(() => insert(node));
  return node;
}

function insert(node) {
  const [first = null] = pending.values();
  $("messages").insertBefore(node, first);
}

// It has its place among the messages now.
function place(node) {
  insert(node);
  count++;
}

// A text of one's own is said.
function settle(id) {
  const node = pending.get(id);
  if (!node) return;
  pending.delete(id);
  node.classList.remove("waiting");
  meta(node, "");
  place(node);
}

function line(name, text) {
  const node = document.createElement("div");
  node.className = name;
  node.textContent = text;
  return node;
}

function note(text) {
  follow(() => insert(line("system", text)));
  announce(text);
}

function textOf(node) {
  return node.querySelector(".text");
}

function meta(node, text) {
  node.querySelector(".meta").textContent = text;
}

// What can not be said any more is in the box again.
function giveBack(why, ids = [...pending.keys()]) {
  if (!ids.length) return;
  for (const id of ids) {
    pending.get(id).remove();
    pending.delete(id);
  }
  $("text").value = [...ids.map((id) => own.get(id)), $("text").value].filter(Boolean).join("\n");
  problem(`${why} What was not said is in the box again.`);
  fit();
}

// Does something to the messages; whoever reads the newest sees what comes.
function follow(change) {
  const box = $("messages");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 100;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function types(connection_id, typing) {
  if (connection_id) typists[typing ? "add" : "delete"](connection_id);
  const names = [...typists].map((id) => `Guest ${id.slice(0, 4)}`);
  $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
}

// For screen readers: each message once, when it is whole. Each is a paragraph of its own, or two in one moment would
// leave only the second.
function announce(text) {
  const node = $("announcer").appendChild(document.createElement("p"));
  node.textContent = text;
  setTimeout(() => node.remove(), 10000);
}

// ---- what one does

let told = false; // that one is typing
let pause = 0;

function writes(writing) {
  clearTimeout(pause);
  if (writing) pause = setTimeout(() => writes(false), TYPING_PAUSE);
  if (writing !== told && room) chat.send(writing ? "typing_start" : "typing_stop");
  told = writing && Boolean(room);
}

$("text").addEventListener("input", () => {
  if (chat.asleep) chat.connect();
  writes(Boolean($("text").value.trim()));
  fit();
});

$("text").addEventListener("keydown", (event) => {
  // While an input method is composing, Enter chooses a word (Safari tells so only by 229).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  if (!$("send").disabled) $("composer").requestSubmit();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  const size = new TextEncoder().encode(text).length;
  problem(size > MAX_TEXT ? "This message is too long: 32 KiB are taken." : "");
  if (size > MAX_TEXT) return;
  writes(false);
  const id = randomId();
  const node = bubble("user", text);
  node.classList.add("waiting");
  own.set(id, text);
  pending.set(id, node);
  $("messages").append(node);
  if (inside) say(id);
  else if (!room) create();
  $("messages").scrollTop = $("messages").scrollHeight;
  $("text").value = "";
  fit();
  $("text").focus();
});

function say(id) {
  chat.send("chat", { session_id: room, message: own.get(id), id });
}

function fit() {
  const box = $("text");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  update();
}

$("new").addEventListener("click", create);

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = $("join-id").value.trim();
  $("join-id").value = "";
});

addEventListener("hashchange", () => {
  const wanted = location.hash.slice(1);
  if (wanted === (joining || room)) return;
  if (wanted) {
    chat.connect(); // it may be asleep
    enter();
  } else {
    left("You have left the room.");
    chat.renew();
  }
});

$("clear").addEventListener("click", () => change("Clear", "POST", `sessions/${room}/clear`));
$("delete").addEventListener("click", () => change("Delete", "DELETE", `sessions/${room}`));

function change(what, method, path) {
  if (!confirm(`${what} this room, and all that was said in it, for everybody?`)) return;
  ask(method, path).catch(({ message }) => problem(message));
}

for (const event of ["online", "visibilitychange"]) {
  (event === "online" ? window : document).addEventListener(event, () => document.hidden || chat.connect());
}

// ---- the HTTP interface

// The JSON that the server answers. An error's message is for the reader.
async function ask(method, path) {
  let response, said;
  try {
    response = await fetch(here(path), { method, signal: AbortSignal.timeout(ASK_TIMEOUT) });
    said = await response.json();
  } catch {
    throw new Error("The server does not answer.");
  }
  if (!response.ok) throw new Error(said.detail);
  return said;
}

let looking = 0;
let listed = "";

// Looks who is where, soon: what comes together is looked at once.
function list() {
  clearTimeout(looking);
  looking = setTimeout(look, 200);
}

async function look() {
  looking = setTimeout(look, REFRESH); // before it is asked, or a list() that comes meanwhile would be forgotten
  // Next time, if it can't be had: that is no reason to interrupt anybody.
  const found = document.hidden || !chat.ready ? null : await ask("GET", "sessions?limit=50").catch(() => null);
  if (!found || JSON.stringify(found.sessions) === listed) return;
  listed = JSON.stringify(found.sessions);
  const focused = document.activeElement.hash;
  $("rooms").replaceChildren(...found.sessions.map(entry));
  $("no-rooms").hidden = found.sessions.length > 0;
  update();
  [...$("rooms").querySelectorAll("a")].find(({ hash }) => hash && hash === focused)?.focus();
}

function entry({ session_id, message_count, connected_clients }) {
  const item = document.createElement("li");
  const link = item.appendChild(document.createElement("a"));
  link.href = `#${session_id}`;
  const messages = message_count === 1 ? "1 message" : `${message_count} messages`;
  link.append(line("name", session_id), line("facts", `${messages} · ${connected_clients} here`));
  return item;
}

chat.connect();
fit();
if (matchMedia("(pointer: fine)").matches) $("text").focus(); // a touch keyboard would cover half of the screen
