// Rooms: the chat dialect, `WS /ws`, in a page.
//
// The first half is the socket, and is all that a client of the chat dialect needs: it connects, comes back when it was
// lost, enters the room again and measures how far away the server is. The second half is the page. Whatever anybody
// has said becomes text in it, never markup.

// ---- the socket ------------------------------------------------------------------------------

const FIRST_DELAY = 500; // ms
const MAX_DELAY = 15000;
const PING_EVERY = 15000;
const PONG_TIMEOUT = 10000;

class Chat {
  #url;
  #on;
  #socket = null;
  #attempt = 0;
  #retry = 0;
  #pinging = 0;
  #pinged = 0;
  #overdue = 0;
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
  }

  send(type, fields = {}) {
    if (this.ready) this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  #receive(frame) {
    if (frame.type === "connected") {
      // Always the first frame.
      this.ready = true;
      this.#pinging = setInterval(() => {
        this.#attempt = 0; // it has lasted: the next backoff starts small again
        this.#ping();
      }, PING_EVERY);
      this.#on.state("connected");
      this.#ping();
    } else if (frame.type === "pong") {
      clearTimeout(this.#overdue);
      this.#on.trip(performance.now() - this.#pinged);
    }
    this.#on.frame(frame);
  }

  // A connection can die without a word: a server that does not answer is not there any more.
  #ping() {
    this.#pinged = performance.now();
    this.#overdue = setTimeout(() => this.#lost(0), PONG_TIMEOUT);
    this.send("ping");
  }

  #lost(code) {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
    this.ready = false;
    clearInterval(this.#pinging);
    clearTimeout(this.#overdue);
    // Idle: nobody has said anything for long. Whoever goes on connects again.
    this.asleep = code === 4408;
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
const MAX_TEXT = 32 * 1024; // bytes of UTF-8
const STATES = { connecting: "Connecting…", connected: "Connected", waiting: "Reconnecting…", asleep: "Asleep" };

let room = ""; // the id of the session that the socket is in
let joining = ""; // the one that it has asked for
let count = 0; // messages that are shown; the server tells how many there are, so it is seen when one was missed
let last = null; // the newest of them
let answer = null; // the one that is being streamed
let asked = false; // by somebody else, and not answered yet
let waiting = []; // messages of one's own that wait for their turn: they stand below all others
let unsure = []; // texts that were on their way when the connection was lost
let held = null; // frames that came while the history was being read
const mine = new Set(); // texts that were written here: the history does not tell whose one is
const typists = new Set(); // connection ids

const chat = new Chat(here("ws").href.replace(/^http/, "ws"), {
  state(name) {
    $("state").dataset.state = name;
    $("state-text").textContent = STATES[name];
    if (!chat.ready) unsure.push(...waiting.splice(0).map(take));
    update();
  },
  trip(ms) {
    $("state-text").textContent = `Connected · ${Math.max(1, Math.round(ms))} ms`;
  },
  frame(frame) {
    if (held && frame.session_id === room && !["status", "error"].includes(frame.type)) held.push(frame);
    else receive(frame);
  },
});

function receive(frame) {
  switch (frame.type) {
    case "connected":
      $("model").textContent = frame.server_info.model;
      return enter();
    case "session_created":
    case "session_joined":
      return entered(frame);
    case "status": // how it stands with what was just written: it is being answered, or waits for others
      if (waiting.length) meta(waiting.at(-1), frame.message);
      return;
    case "response_start":
      // An answer before which nobody else has asked is one's own.
      if (waiting.length && !asked) place(waiting.shift());
      // One that the history has the beginning of is the newest message already.
      if (!answer || answer !== last) answer = place(add("agent", ""));
      return;
    case "chunk":
      answer ??= place(add("agent", ""));
      if (frame.chunk_number === 1) textOf(answer).textContent = "";
      return follow(() => textOf(answer).append(frame.text));
    case "response_complete":
      return completed(frame);
    case "session_update":
      return updated(frame);
    case "error":
      return failed(frame.message);
  }
}

function completed({ full_response: text, interrupted, message_count }) {
  asked = false;
  if (answer && text) {
    textOf(answer).textContent = text;
    if (interrupted) meta(answer, "Interrupted");
    announce(`Agent: ${text}`);
  } else if (answer) {
    answer.remove(); // nothing was said
    count--;
  }
  answer = null;
  if (count !== message_count) load();
  list();
}

function updated({ update_type, connection_id, typing, message, message_count }) {
  const who = `Guest ${connection_id?.slice(0, 4)}`;
  switch (update_type) {
    case "user_typing":
      return types(connection_id, typing);
    case "message_added":
      asked = true;
      if (message_count <= count) return; // it is in the history that has just been read
      place(add("other", message, who));
      announce(`${who}: ${message}`);
      break;
    case "user_joined":
      note(`${who} came in.`);
      break;
    case "user_disconnected":
      note(`${who} left.`);
      break;
    case "session_cleared":
      empty();
      note("The room was cleared: the agent remembers nothing of what was said.");
      break;
    case "session_deleted":
      left();
      note("The room was deleted.");
      break;
  }
  list();
}

function failed(message) {
  if (joining) left();
  else if (waiting.length) giveBack(take(waiting.pop())); // what was sent last
  $("problem").textContent = message;
  announce(message);
}

// ---- the room

// Asks for the room that the address names: its hash is the id, so that a link leads into a room.
function enter() {
  list();
  joining = location.hash.slice(1);
  if (joining) chat.send("join_session", { session_id: joining });
}

function entered({ type, session_id }) {
  joining = "";
  $("problem").textContent = "";
  if (session_id !== room) {
    if (room) waiting = []; // in none, it is what this room was made for
    room = session_id;
    empty();
    if (location.hash.slice(1) !== room) history.pushState(null, "", `#${room}`);
  }
  if (type === "session_joined") load();
  update();
  list();
}

function left() {
  room = joining = "";
  waiting = [];
  empty();
  history.replaceState(null, "", location.pathname + location.search);
  update();
}

// Reads what was said in the room: after coming in, after having been away, and where something was missed.
async function load() {
  if (held) return;
  const [id, before] = [room, count];
  held = [];
  const session = await ask("GET", `sessions/${id}`);
  const frames = held;
  held = null;
  if (id !== room) return room && load(); // another was entered meanwhile
  if (session) {
    const { history: lines, message_count } = session;
    const arrived = lines.slice(lines.length - message_count + before).map(({ text }) => text);
    waiting = waiting.filter((node) => !arrived.includes(textOf(node).textContent));
    empty();
    for (const { role, text } of lines) place(add(role === "agent" ? "agent" : mine.has(text) ? "user" : "other", text));
    count = message_count; // of a very long history, the end is told
    if (last?.matches(".agent")) answer = last; // it may be going on
    giveBack(...unsure.splice(0).filter((text) => !arrived.includes(text)));
  }
  frames.forEach(receive);
}

function empty() {
  $("messages").replaceChildren(...waiting);
  count = 0;
  last = answer = null;
  asked = false;
  typists.clear();
  types();
}

function update() {
  $("room-name").textContent = room ? `Room ${room}` : "No room yet";
  $("room-actions").hidden = !room;
  $("hint").hidden = Boolean(room || waiting.length);
  $("window").href = $("speak").href = "";
  if (room) {
    $("window").href = `#${room}`;
    // The same session in the main page, by the live dialect: the rooms are the guest's.
    $("speak").href = here(`./?user=guest&session=${room}`);
  }
  $("new").disabled = $("join-button").disabled = !chat.ready;
  $("send").disabled = !chat.ready || !$("text").value.trim();
  for (const link of $("rooms").querySelectorAll("a")) {
    if (link.hash.slice(1) === room) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// ---- messages

// `kind`: user (oneself), other or agent.
function add(kind, text, who = "") {
  const node = document.createElement("div");
  node.className = `message ${kind === "other" ? "user other" : kind}`;
  const bubble = node.appendChild(document.createElement("div"));
  bubble.className = "bubble";
  if (who) bubble.append(line("who", who));
  bubble.append(line("text", text));
  node.append(line("meta", ""));
  follow(() => $("messages").insertBefore(node, waiting[0] ?? null));
  return node;
}

// It has its place among the messages now.
function place(node) {
  node.classList.remove("waiting");
  meta(node, "");
  $("messages").insertBefore(node, waiting[0] ?? null);
  count++;
  return (last = node);
}

function line(name, text) {
  const node = document.createElement("div");
  node.className = name;
  node.textContent = text;
  return node;
}

function note(text) {
  follow(() => $("messages").insertBefore(line("system", text), waiting[0] ?? null));
  announce(text);
}

function textOf(node) {
  return node.querySelector(".text");
}

function meta(node, text) {
  node.querySelector(".meta").textContent = text;
}

// Takes a message away, and returns its text.
function take(node) {
  node.remove();
  return textOf(node).textContent;
}

// What has not arrived is there to be sent again.
function giveBack(...texts) {
  $("text").value = [...texts, $("text").value].filter(Boolean).join("\n");
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
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!$("send").disabled) $("composer").requestSubmit();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  const size = new TextEncoder().encode(text).length;
  $("problem").textContent = size > MAX_TEXT ? "This message is too long: 32 KiB are taken." : "";
  if (size > MAX_TEXT) return;
  writes(false);
  chat.send("chat", room ? { session_id: room, message: text } : { message: text });
  mine.add(text);
  const node = add("user", text);
  node.classList.add("waiting");
  $("messages").append(node);
  waiting.push(node);
  $("messages").scrollTop = $("messages").scrollHeight;
  $("text").value = "";
  fit();
  $("text").focus();
});

function fit() {
  const box = $("text");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  update();
}

$("new").addEventListener("click", () => chat.send("create_session"));

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = $("join-id").value.trim();
  $("join-id").value = "";
});

addEventListener("hashchange", () => {
  if (location.hash.slice(1) !== room) enter();
});

$("clear").addEventListener("click", () => ask("POST", `sessions/${room}/clear`));

$("delete").addEventListener("click", () => {
  if (confirm("Delete this room, and all that was said in it, for everybody?")) ask("DELETE", `sessions/${room}`);
});

for (const event of ["online", "visibilitychange"]) {
  (event === "online" ? window : document).addEventListener(event, () => document.hidden || chat.connect());
}

// ---- the HTTP interface

// The JSON that the server answers; null, if it can't be reached or says no, which is shown.
async function ask(method, path) {
  try {
    const response = await fetch(here(path), { method });
    const said = await response.json();
    if (response.ok) return said;
    $("problem").textContent = said.detail;
  } catch {
    // It is gone, and the socket tells so too.
  }
  return null;
}

let looking = 0;
let listed = "";

// Looks who is where, soon: what comes together is looked at once.
function list() {
  clearTimeout(looking);
  looking = setTimeout(look, 200);
}

async function look() {
  const found = document.hidden || !chat.ready ? null : await ask("GET", "sessions?limit=50");
  clearTimeout(looking);
  looking = setTimeout(look, REFRESH);
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
