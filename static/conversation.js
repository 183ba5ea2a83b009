// The messages: who said what, in the order in which it makes sense to a reader.
//
// What comes over the wire is a stream of pieces. Here they become bubbles: one for each thing a user said, one for
// each answer, with the tools that the answer used inside it. Everything is set as text, never as markup.
//
// `who` is the name of somebody else who said something; without it, it was said here.

const EXPECT_TIMEOUT = 30000; // an agent may choose to say nothing; then the three dots go away again
const NEAR = 48; // pixels from the bottom that still count as being there

export class Conversation {
  #root;
  #latest;
  #announce;
  #welcome;
  #answer = null; // the bubble that is being filled: {item, bubble, line, text, started}
  #lastAnswer = null;
  #hearing = new Map(); // speaker → the utterance of theirs that is being recognized
  #asked = false; // the present turn's question is already shown
  #unanswered = false;
  #expecting = 0;
  #unconfirmed = new Map(); // id → item, of texts that may not have arrived
  #tools = new Map(); // tool_id → the card of a running tool
  #pinned = true; // the reader is at the bottom, and wants to stay there
  #notice = null; // the last line that was no bubble: {item, kind, text, count}
  #building = false; // a whole history comes: the page is laid out once, after it

  // What is said now belongs to another conversation: it stays where it is when this one is told anew.
  aside = false;

  // `announce(text)` speaks to screen readers.
  constructor(root, latest, { announce }) {
    this.#root = root;
    this.#latest = latest;
    this.#announce = announce;
    this.#welcome = root.querySelector("#welcome");
    root.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    latest.addEventListener("click", () => this.#toEnd());
    // The pane changes its height when the keyboard opens, a notice appears or the window turns.
    new ResizeObserver(() => this.#pinned && this.#follow()).observe(root);
  }

  get answering() {
    return Boolean(this.#answer?.started);
  }

  get expecting() {
    return Boolean(this.#answer && !this.#answer.started);
  }

  // ---- the user

  typed(id, text, waiting) {
    const item = this.#bubble("user", "You", { text });
    this.#unconfirmed.set(id, item);
    this.#place(item);
    if (waiting) mark(item, "Waiting to be sent", "waiting");
    this.#asked = this.#unanswered = true;
    if (!waiting) this.#expect();
    this.#toEnd(); // whoever writes wants to see it
  }

  left(id) {
    const item = this.#unconfirmed.get(id);
    if (item && this.aside) item.dataset.aside = "true"; // it may have been written before that was so
    if (!item?.classList.contains("waiting")) return;
    mark(item, "", "");
    this.#unanswered = true;
    this.#expect();
  }

  // The connection was lost before it was known whether this has arrived.
  waits(id) {
    const item = this.#unconfirmed.get(id);
    if (!item) return;
    mark(item, "Waiting to be sent", "waiting");
    this.unexpect();
  }

  confirmed(id) {
    this.#unconfirmed.delete(id);
  }

  // All that was said before this text is shown now, and it stands below.
  placed(id) {
    const item = this.#unconfirmed.get(id);
    if (item && item !== this.#lastSettled()) this.#place(item);
  }

  refused(id) {
    const item = this.#unconfirmed.get(id);
    if (item) mark(item, "Not answered", "interrupted");
    this.#unconfirmed.delete(id);
    // What was asked just before it may still be answered.
    if (!item?.previousElementSibling?.matches(".user:not(.interrupted)")) this.unexpect();
  }

  // Somebody else has written something.
  wrote(text, who) {
    this.#place(this.#bubble("user", who, { text, other: true }));
    this.#asked = this.#unanswered = true;
    this.#expect();
    this.#follow();
  }

  // What was heard. `text` is the whole utterance so far, and replaces what was shown of it.
  heard(text, final, { speaker = "", who = "" } = {}) {
    let item = this.#hearing.get(speaker);
    if (!item) {
      if (!text.trim()) return;
      item = this.#bubble("user", who || "You", { text: "", other: Boolean(who) });
      item.classList.add("heard");
      this.#hearing.set(speaker, item);
      // Recognition can be later than the answer that it led to. The question still belongs above it, unless that
      // answer's question is there already: then this is somebody speaking into it.
      if (this.#answer && !(this.#answer.started && this.#asked)) this.#answer.item.before(item);
      else this.#place(item);
      this.#asked = true;
    }
    item.querySelector(".text").textContent = text.trim();
    item.classList.toggle("partial", !final);
    if (final) {
      this.#hearing.delete(speaker);
      if (!text.trim()) item.remove();
      else if (item === this.#root.lastElementChild) {
        this.#unanswered = true;
        this.#expect();
      }
    }
    this.#follow();
  }

  // The conversation has ended in the middle of an utterance: nobody will recognize the rest of it.
  hush() {
    for (const item of this.#hearing.values()) {
      item.classList.remove("partial");
      mark(item, "Not heard to the end", "interrupted");
    }
    this.#hearing.clear();
  }

  // ---- the agent

  said(text) {
    if (!text) return;
    const answer = this.#begin();
    if (!answer.line) {
      answer.line = answer.bubble.appendChild(element("div", "text"));
      text = text.trimStart();
      answer.line.append("");
    }
    answer.line.firstChild.appendData(text);
    answer.text += text;
    this.#follow();
  }

  toolStarted({ tool_id, tool_name, arguments: args, truncated }) {
    const card = element("details", "tool");
    const summary = element("summary");
    const spinner = element("span", "spinner");
    spinner.setAttribute("aria-hidden", "true");
    summary.append(spinner, element("span", "tool-name", tool_name), element("span", "tool-state", "running"));
    const label = truncated ? "Arguments (the beginning of them)" : "Arguments";
    card.append(summary, element("p", "tool-label", label), element("pre", "", pretty(args)));
    this.#tools.set(tool_id, { card, start: performance.now() });

    // Tools go on after an answer was stopped. They are still that answer's.
    const last = this.#root.lastElementChild;
    const late = last === this.#lastAnswer?.item && last.classList.contains("interrupted");
    const answer = late ? this.#lastAnswer : this.#begin();
    answer.bubble.append(card);
    answer.line = null; // words that follow stand below the card
    this.#follow();
  }

  toolCompleted({ tool_id, result, truncated }) {
    const tool = this.#tools.get(tool_id);
    if (!tool) return;
    this.#tools.delete(tool_id);
    const seconds = (performance.now() - tool.start) / 1000;
    tool.card.classList.add("done");
    const state = seconds < 0.1 ? "done" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
    tool.card.querySelector(".tool-state").textContent = state;
    const label = truncated ? "Result (the beginning of it)" : "Result";
    tool.card.append(element("p", "tool-label", label), element("pre", "", pretty(result)));
    this.#follow();
  }

  // The turn is over. `aloud`: the reader has heard the answer, and need not be told it again.
  ended({ interrupted = false, aloud = false } = {}) {
    // What was interrupted is an earlier answer, of which the last words were still being heard. This one is to come.
    if (interrupted && this.expecting && this.#unanswered) return;
    clearTimeout(this.#expecting);
    if (this.expecting) {
      this.#answer.item.remove();
      this.#answer = null;
      this.#unanswered = false;
    } else if (this.#answer) {
      const { text } = this.#answer;
      this.#close();
      if (interrupted) this.markInterrupted();
      if (!aloud && text) this.#announce(`Agent: ${text}${interrupted ? " (Interrupted)" : ""}`);
      const last = this.#root.lastElementChild;
      this.#asked = last.classList.contains("user");
      // Something was asked while this answer was still going on.
      if (this.#unanswered && this.#asked && !this.#hearing.size && !last.classList.contains("waiting")) {
        this.#expect();
      }
    }
    this.#follow();
  }

  markInterrupted() {
    if (this.#lastAnswer) mark(this.#lastAnswer.item, "Interrupted", "interrupted");
  }

  // No answer can come now (the connection is gone, or the agent has reported an error).
  unexpect() {
    if (this.expecting) this.ended();
    this.#unanswered = false;
  }

  // ---- the whole

  // The conversation as the server knows it, [{role, text, open, who}, …], in the place of what is shown of it. The
  // texts of these ids are not in it yet, and follow. What is shown already stays as it is, with all that is no text.
  // `isAnother`: another life of it (the server was restarted, say), in which nobody answers what was asked before.
  history(lines, ids, isAnother) {
    lines = lines.filter(({ text }) => text.trim());
    const coming = new Set(ids.map((id) => this.#unconfirmed.get(id)));
    const shown = [...this.#root.children].filter(
      (item) => item.matches(".message:not(.expected)") && !item.dataset.aside && !coming.has(item),
    );
    const differs = lines.findIndex((line, index) => !shown[index] || !shows(shown[index], line));
    const same = differs < 0 ? lines.length : differs;
    for (const item of shown.slice(0, same)) if (item.classList.contains("waiting")) mark(item, "", "");

    const aside = this.#empty(shown[same - 1]);
    this.#building = true;
    for (const { role, text, open, who } of lines.slice(same)) {
      if (role === "user") this.#place(this.#bubble("user", who || "You", { text, other: Boolean(who), now: false }));
      else {
        this.#open({ now: false });
        this.said(text);
        if (!open) this.#close();
      }
    }
    this.#building = false;
    this.#asked = lines.at(-1)?.role === "user";
    if (isAnother && this.#asked && !ids.length) mark(this.#root.lastElementChild, "Not answered", "interrupted");
    this.#root.append(...aside);
    this.#restore(ids);
  }

  // Somebody has emptied the conversation, and it begins anew.
  cleared(why, ids) {
    this.#empty();
    this.#restore(ids);
    this.note("cleared", why);
  }

  // Takes out all that follows `last`; returns what of it belongs to another conversation.
  #empty(last = null) {
    clearTimeout(this.#expecting);
    if (this.answering) this.#close();
    this.#answer?.item.remove();
    this.#answer = this.#lastAnswer = this.#notice = null;
    this.#unanswered = this.#asked = false;
    this.#hearing.clear();
    this.#tools.clear();
    const items = [...this.#root.children];
    const rest = items.slice(items.indexOf(last) + 1);
    for (const item of rest) item.remove();
    return rest.filter((item) => item.dataset.aside);
  }

  // Puts back what was written here and is still on its way.
  #restore(ids) {
    const coming = [...this.#unconfirmed].filter(([id]) => ids.includes(id));
    this.#unconfirmed = new Map(coming);
    for (const [, item] of coming) this.#place(item);
    if (coming.length) this.#asked = this.#unanswered = true;
    if (!this.#root.childElementCount) this.#root.append(this.#welcome);
    this.#follow();
  }

  // ---- everything else

  // A line between the bubbles. The same one again is counted, not repeated.
  note(kind, text) {
    const last = this.#notice;
    if (last && last.kind === kind && last.text === text && last.item === this.#lastSettled()) {
      last.item.querySelector(".count").textContent = ` (${++last.count} times)`;
      return;
    }
    const item = element("p", `system ${kind}`, text);
    item.append(element("span", "count"));
    this.#notice = { item, kind, text, count: 1 };
    this.#place(item);
    this.#announce(text);
  }

  // Sound that was given up. Neighboring losses add up to one line.
  lost(direction, milliseconds) {
    const last = this.#notice;
    const kind = `dropped-${direction}`;
    const total = milliseconds + (last?.kind === kind && last.item === this.#lastSettled() ? last.total : 0);
    const what =
      direction === "up"
        ? "what you said was lost on the way."
        : "the agent’s voice was lost: the connection is too slow.";
    const text = `${(total / 1000).toFixed(1)} s of ${what}`;
    if (total > milliseconds) last.item.textContent = text;
    else {
      const item = element("p", "system", text);
      this.#notice = { item, kind };
      this.#place(item);
    }
    this.#notice.total = total;
    this.#follow();
  }

  // ---- parts

  #bubble(side, who, { text = null, other = false, now = true } = {}) {
    const item = element("div", `message ${side}`);
    item.classList.toggle("other", other);
    const bubble = element("div", "bubble");
    const name = element("span", other ? "who" : "visually-hidden", who);
    name.append(element("span", "visually-hidden", ": "));
    bubble.append(name);
    if (text !== null) bubble.append(element("div", "text", text));
    const meta = element("div", "meta");
    if (now) meta.append(clock()); // of what was said before, nobody knows when
    meta.append(element("span", "mark"));
    item.append(bubble, meta);
    return item;
  }

  #begin() {
    if (!this.#answer) this.#open();
    const answer = this.#answer;
    if (!answer.started) {
      answer.started = true;
      this.#unanswered = false;
      clearTimeout(this.#expecting);
      answer.item.classList.replace("expected", "open");
      answer.bubble.querySelector(".dots")?.remove();
    }
    return answer;
  }

  #open(options) {
    const item = this.#bubble("agent", "Agent", options);
    item.classList.add("expected");
    this.#answer = { item, bubble: item.firstChild, line: null, text: "", started: false };
    this.#place(item);
  }

  #close() {
    this.#answer.item.classList.remove("open");
    this.#lastAnswer = this.#answer;
    this.#answer = null;
  }

  // Three dots where the answer will be.
  #expect() {
    if (this.answering) return;
    if (this.#answer) this.#root.append(this.#answer.item);
    else {
      this.#open();
      const dots = element("div", "dots");
      dots.setAttribute("aria-hidden", "true");
      dots.append(element("i"), element("i"), element("i"));
      this.#answer.bubble.append(dots);
    }
    clearTimeout(this.#expecting);
    // Aside, it is known when no answer comes.
    if (!this.aside) this.#expecting = setTimeout(() => this.unexpect(), EXPECT_TIMEOUT);
    this.#follow();
  }

  #place(item) {
    if (!item.classList.contains("cleared")) this.#welcome.remove();
    if (this.aside) item.dataset.aside = "true";
    // Dots stand for what comes next, so they stay last.
    if (this.expecting && this.#answer.item !== item) this.#answer.item.before(item);
    else this.#root.append(item);
    this.#follow();
  }

  #lastSettled() {
    return this.expecting ? this.#answer.item.previousElementSibling : this.#root.lastElementChild;
  }

  // ---- scrolling

  #follow() {
    if (this.#building || this.#welcome.isConnected) return; // the welcome is read from its top
    if (this.#pinned) this.#toEnd();
    else this.#latest.hidden = false;
  }

  #toEnd() {
    this.#root.scrollTop = this.#root.scrollHeight;
    this.#pinned = true;
    this.#latest.hidden = true;
  }

  #scrolled() {
    this.#pinned = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < NEAR;
    if (this.#pinned) this.#latest.hidden = true;
  }
}

function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

// Whether an item is that line, as far as one can see. Space is not the same everywhere.
function shows(item, { role, text, open }) {
  if (open || !item.classList.contains(role) || item.matches(".partial, :has(.tool:not(.done))")) return false;
  const texts = Array.from(item.querySelectorAll(".text"), ({ textContent }) => textContent);
  return texts.join("").replace(/\s+/g, "") === text.replace(/\s+/g, "");
}

function clock() {
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = now.toISOString();
  return time;
}

// A word beside the time. Its line is always there, so nothing moves when it appears.
function mark(item, text, className) {
  item.classList.remove("waiting", "interrupted");
  if (className) item.classList.add(className);
  item.querySelector(".meta .mark").textContent = text;
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
