// What is to be shown of a conversation, made of its messages: reduce(state, message) returns the next state.
//
// A state is never changed. What stays the same is shared with the state before, so that a view need not draw it again.
//
// Invariants, which check() tests: the keys of lines are unique; at most one answer is open, and `answering` says so; at
// most one utterance of each speaker is open; each tool that waits is there once; something is shown only in a call; one
// rule says when the microphone is sent.

/**
 * @typedef {import("./types.js").State} State
 * @typedef {import("./types.js").Line} Line
 * @typedef {import("./types.js").Tool} Tool
 * @typedef {import("./types.js").Message} Message
 */

/** @type {State} */
export const EMPTY = {
  connection: { name: "connecting" },
  sessionId: "",
  title: "",
  model: "",
  rehearsal: false,
  name: "",
  role: "",
  mode: "auto",
  mustPushToTalk: false,
  pushToTalk: false,
  halfDuplex: false,
  echo: false,
  voices: [],
  voice: "",
  languages: [],
  language: "",
  instructions: "",
  clientTools: [],
  temperature: null,
  messages: [],
  older: "",
  expecting: false,
  answering: false,
  waiting: [],
  connections: 0,
  typing: [],
  names: {},
  call: "off",
  showing: "",
  beside: false,
  error: null,
};

/**
 * Throws if an invariant does not hold.
 *
 * @param {State} state
 */
export function check({ messages, answering, waiting, call, showing, pushToTalk, halfDuplex }) {
  const areUnique = (values) => new Set(values).size === values.length;
  const open = messages.filter((each) => each.open);
  const answers = open.filter(({ role }) => role === "agent");
  const broken = [
    !areUnique(messages.map(({ key }) => key)) && "two lines have one key",
    answers.length > 1 && "two answers are open",
    answering !== answers.length > 0 && "answering is wrong",
    !areUnique(open.map(({ role, speaker }) => `${role} ${speaker}`)) && "one speaker has two open utterances",
    !areUnique(waiting.map(({ tool_id }) => tool_id)) && "a tool waits twice",
    showing && call === "off" && "something is shown, and there is no call",
    pushToTalk && halfDuplex && "two rules say when the microphone is sent",
  ].filter(Boolean);
  if (broken.length) throw new Error(broken.join(", "));
}

let made = 0; // makes the keys of lines unique

/** @returns {Line} */
function line(role, text, fields = {}) {
  const key = `line-${++made}`;
  const none = { id: "", name: "", mine: false, status: "", open: false, spoken: false };
  const more = { ...none, interrupted: false, unanswered: false, cut: false, time: new Date().toISOString() };
  return { key, role, text, beside: false, tools: [], .../** @type {any} */ (more), ...fields };
}

/**
 * @param {State} state
 * @param {Message} message
 * @returns {State}
 */
export function reduce(state, message) {
  const next = reduced(state, message);
  const answering = next.messages.some(isAnswering);
  return next.answering === answering ? next : { ...next, answering };
}

function reduced(/** @type {State} */ state, /** @type {Message} */ message) {
  switch (message.type) {
    case "state": {
      const { type, ...connection } = message;
      if (["connecting", "connected", "modelling"].includes(connection.name)) return { ...state, connection };
      const unknown = { connection, connections: 0, typing: [] };
      if (connection.name === "waiting") return { ...state, ...unknown };
      // What is being recognized is not recognized to its end, and nothing is answered now.
      const messages = changed(state.messages, isHearing, (each) => ({ ...each, open: false, interrupted: true }));
      return { ...state, ...unknown, messages, expecting: false };
    }
    case "hello":
      return withDuplex({
        ...state,
        sessionId: message.session_id,
        title: message.title ?? "",
        model: message.model,
        rehearsal: message.rehearsal,
        name: message.name ?? "",
        role: message.role ?? "",
        ...shape(message),
        voices: message.voices ?? [],
        voice: message.voice ?? "",
        languages: message.languages ?? [],
        language: message.language ?? "",
        connections: message.connections,
        names: { ...state.names, ...message.names },
        typing: [],
      });
    case "configured":
      return withDuplex({ ...state, voice: message.voice, language: message.language, ...shape(message) });
    case "history":
      return history(state, message);
    case "older":
      return { ...state, messages: [...message.lines.map(known), ...state.messages], older: message.older };
    case "cleared": {
      const messages = state.messages.filter(({ id }) => message.ids.includes(id));
      const title = message.how === "deleted" ? "" : state.title;
      return { ...state, title, messages, older: "", waiting: [], expecting: messages.length > 0 };
    }
    case "renamed":
      return { ...state, title: message.title };

    case "written": {
      const { id, text, pictures, waiting, beside } = message;
      const more = pictures.length ? { pictures } : {};
      const written = line("user", text, { id, mine: true, status: waiting ? "waiting" : "sent", beside, ...more });
      return { ...state, messages: [...state.messages, written], expecting: !waiting, error: null };
    }
    case "sent":
      return fate(state, message.id, { status: "sent", beside: state.beside }, true);
    case "unsent":
      return fate(state, message.id, { status: "waiting" }, false);
    case "confirmed":
      return fate(state, message.id, { status: "" });
    case "refused":
      return fate(state, message.id, { status: "refused" }, false);
    case "unpictured":
      return fate(state, message.id, { unpictured: true });
    case "placed": {
      const placed = state.messages.filter(({ id }) => id === message.id);
      return { ...state, messages: [...state.messages.filter((each) => !placed.includes(each)), ...placed] };
    }
    case "cancelled":
      return { ...state, messages: state.messages.filter(({ id }) => id !== message.id) };

    case "rewound":
      return rewound(state, message);

    case "message": {
      const { text, id = "", name = "", mine } = message;
      return { ...state, messages: [...state.messages, line("user", text, { id, name, mine })], expecting: true };
    }
    case "transcript":
      return transcript(state, message);
    case "text": {
      const add = (/** @type {Line} */ answer) => ({
        ...answer,
        text: answer.text ? answer.text + message.text : message.text.trimStart(),
      });
      return message.text ? toAnswer(state, add) : state;
    }
    case "tool_start": {
      const { type, pending, ...tool } = { result: null, ...message };
      if (pending) return { ...state, waiting: [...without(state.waiting, tool.tool_id), tool] };
      return toAnswer(state, (answer) => ({ ...answer, tools: [...answer.tools, { ...tool, at: answer.text.length }] }), true);
    }
    case "tool_complete": {
      const { tool_id, result, truncated } = message;
      const isIts = (/** @type {Tool} */ tool) => tool.tool_id === tool_id;
      const complete = (/** @type {Tool} */ tool) => ({ ...tool, result, ...(truncated && { truncated }) });
      const messages = changed(state.messages, ({ tools }) => tools.some(isIts), (each) => ({
        ...each, tools: changed(each.tools, isIts, complete),
      }));
      return { ...state, messages, waiting: without(state.waiting, tool_id) };
    }
    case "turn_end":
      return turnEnd(state, message);
    case "heard":
      return heard(state, message);

    case "presence": {
      const { connections, names, left } = message;
      return { ...state, connections, names: { ...state.names, ...names }, typing: state.typing.filter((id) => !left.includes(id)) };
    }
    case "typing": {
      if (message.mine) return state;
      const rest = state.typing.filter((id) => id !== message.connection_id);
      return { ...state, typing: message.typing ? [...rest, message.connection_id] : rest };
    }
    case "call":
      // A call begins with devices of which nothing is known.
      return withDuplex({ ...state, call: message.state, echo: state.echo && message.state !== "asking" });
    case "echo":
      return withDuplex({ ...state, echo: message.heard });
    case "choices":
      return withDuplex({ ...state, mode: message.choices.mode ?? state.mode });
    case "showing":
      return { ...state, showing: message.what };
    case "beside": {
      // What is open is cut off: the next answer is another conversation's.
      const cut = (/** @type {Line} */ each) => ({ ...each, open: false, interrupted: true });
      const messages = message.active ? changed(state.messages, ({ open }) => open, cut) : state.messages;
      return { ...state, messages, beside: message.active };
    }
    case "error": {
      const { code = "", message: text, id, tool_id = "" } = message;
      const waiting = code === "unknown_tool" ? without(state.waiting, tool_id) : state.waiting;
      return { ...state, error: { code, message: text }, waiting, expecting: state.expecting && Boolean(id) };
    }
  }
  return state;
}

// What clients have set of how the agent answers.
function shape(/** @type {import("./types.js").ShapeFields} */ { instructions, tools, push_to_talk, temperature }) {
  const mustPushToTalk = Boolean(push_to_talk);
  return { instructions: instructions ?? "", clientTools: tools ?? [], mustPushToTalk, temperature: temperature ?? null };
}

// When the microphone is sent: always, but with push to talk or in half duplex.
function withDuplex(/** @type {State} */ state) {
  const { mode, mustPushToTalk, echo } = state;
  const pushToTalk = mustPushToTalk || mode === "push_to_talk";
  const halfDuplex = !pushToTalk && (mode === "half_duplex" || (mode === "auto" && echo));
  return { ...state, pushToTalk, halfDuplex };
}

const isHearing = (/** @type {Line} */ { spoken, open }) => spoken && open;

const isAnswering = (/** @type {Line} */ { role, open }) => role === "agent" && open;

// Changes the answer that is being given, or begins one. `isTool`: tools go on after their answer was stopped, and still
// belong to it.
function toAnswer(/** @type {State} */ state, change, isTool = false) {
  const { messages, beside } = state;
  const newest = messages.at(-1);
  const isLate = isTool && newest?.role === "agent" && newest.interrupted;
  const at = isLate ? messages.length - 1 : messages.findLastIndex(isAnswering);
  if (at < 0) return { ...state, expecting: false, messages: [...messages, change(line("agent", "", { open: true, beside }))] };
  const expecting = isLate && state.expecting;
  return { ...state, expecting, messages: messages.map((each, index) => (index === at ? change(each) : each)) };
}

function changed(items, isIt, change) {
  return items.some(isIt) ? items.map((each) => (isIt(each) ? change(each) : each)) : items;
}

const without = (/** @type {readonly Tool[]} */ tools, id) => tools.filter(({ tool_id }) => tool_id !== id);

function fate(state, id, fields, expecting = state.expecting) {
  if (!state.messages.some((each) => each.id === id)) return state;
  return { ...state, messages: changed(state.messages, (each) => each.id === id, (each) => ({ ...each, ...fields })), expecting };
}

function transcript(state, { text, final, name = "", mine, connection_id }) {
  const speaker = mine ? "" : connection_id;
  const isIts = (each) => isHearing(each) && each.speaker === speaker;
  const heard = text.trim();
  const others = state.messages.filter((each) => !isIts(each));
  const known = state.messages.find(isIts);
  if (!heard) return known && final ? { ...state, messages: others } : state;
  const said = { ...(known ?? line("user", "", { name, mine, spoken: true, speaker })), text: heard, open: !final };
  const expecting = final || state.expecting;
  if (known) return { ...state, expecting, messages: changed(state.messages, isIts, () => said) };
  // A transcript can come after its answer has begun. The question still belongs above that answer, unless there is a
  // question above it already: then this is speech that interrupts it.
  const at = state.messages.findLastIndex(isAnswering);
  const isAsked = at < 0 || state.messages[at - 1]?.role === "user";
  const place = isAsked ? state.messages.length : at;
  const messages = [...state.messages.slice(0, place), said, ...state.messages.slice(place)];
  return { ...state, messages, expecting: expecting && isAsked };
}

function turnEnd(/** @type {State} */ state, /** @type {import("./types.js").TurnEndMessage} */ { interrupted, wasPlaying, usage, grounding }) {
  const at = state.messages.findLastIndex(isAnswering);
  if (at < 0) {
    // An earlier answer was interrupted, which was still being played. The present one has not begun.
    if (!interrupted) return { ...state, expecting: false };
    const newest = state.messages.findLastIndex(({ role }) => role === "agent");
    if (newest < 0 || !wasPlaying) return state;
    const isIt = (each) => each === state.messages[newest];
    return { ...state, messages: changed(state.messages, isIt, (each) => ({ ...each, interrupted })) };
  }
  const ended = { ...state.messages[at], open: false, interrupted, ...(usage && { usage }), ...(grounding && { grounding }) };
  // A question was asked during this answer.
  const expecting = state.messages.slice(at + 1).some(({ role, status }) => role === "user" && ["", "sent"].includes(status));
  return { ...state, messages: [...state.messages.slice(0, at), ended, ...state.messages.slice(at + 1)], expecting };
}

// Of the last answer the users have heard only the beginning. If that is nothing, only its tools are shown, if it has any.
function heard(/** @type {State} */ state, /** @type {import("./types.js").HeardMessage} */ message) {
  const text = message.text.trimStart();
  const at = state.messages.findLastIndex(({ role, open, beside }) => role === "agent" && !open && !beside);
  if (at < 0) return state;
  const isAfter = (/** @type {Tool} */ tool) => (tool.at ?? 0) > text.length;
  const tools = changed(state.messages[at].tools, isAfter, (tool) => ({ ...tool, at: text.length }));
  const left = text || tools.length ? [{ ...state.messages[at], text, tools, interrupted: true }] : [];
  return { ...state, messages: [...state.messages.slice(0, at), ...left, ...state.messages.slice(at + 1)] };
}

function known(/** @type {import("./types.js").HistoryLine} */ { role, text, id = "", name = "", mine = false, open = false, ...more }) {
  const tools = (more.tools ?? []).filter(({ pending }) => !pending); // those are in `waiting`
  return line(role, text, { id, name, mine, open, tools, time: more.timestamp ?? "", ...marks(more) });
}

const marks = ({ interrupted = false, unanswered = false, cut = false }) => ({ interrupted, unanswered, cut });

const letters = (/** @type {string} */ text) => text.replace(/\s+/g, ""); // white space is not the same in a history

// What a user has written or said last is gone, with all after it. Texts that are still on their way come later.
function rewound(/** @type {State} */ state, { id = "" }) {
  const isComing = (/** @type {Line} */ each) => each.beside || (each.id !== id && ["waiting", "sent"].includes(each.status));
  const named = id ? state.messages.findIndex((each) => each.id === id) : -1;
  const at = named < 0 ? state.messages.findLastIndex((each) => each.role === "user" && !isComing(each)) : named;
  if (at < 0) return state;
  const messages = state.messages.filter((each, index) => index < at || isComing(each));
  return { ...state, messages, waiting: [], expecting: messages.some(({ status }) => status === "sent") };
}

// The conversation as the server knows it. Lines that are shown already are kept, with their tools.
function history(state, { lines, ids, isAnother, older }) {
  const coming = state.messages.filter(({ id }) => id && ids.includes(id));
  const beside = state.messages.filter((each) => each.beside && !coming.includes(each));
  const shown = state.messages.filter((each) => !beside.includes(each) && !coming.includes(each));
  const messages = lines.filter(({ text, tools }) => text.trim() || tools?.length).map((each, index) => {
    const before = shown[index];
    const isSame = before && !each.open && before.role === each.role && letters(before.text) === letters(each.text);
    const marked = { ...marks(each), interrupted: Boolean(each.interrupted || before?.interrupted) };
    return isSame ? { ...before, id: each.id ?? before.id, status: "", open: false, ...marked } : known(each);
  });
  return {
    ...state,
    messages: [...messages, ...beside, ...coming],
    older,
    expecting: coming.length > 0,
    waiting: isAnother ? [] : state.waiting,
  };
}
