// The messages: who said what, in the order in which it makes sense to a reader.
//
// What comes over the wire is a stream of pieces. Here they become bubbles: one for each thing the user said, one for
// each answer, with the tools that the answer used inside it. Everything is set as text, never as markup.

const EXPECT_TIMEOUT = 30000; // an agent may choose to say nothing; then the three dots go away again
const NEAR = 48; // pixels from the bottom that still count as being there

export class Conversation {
  #root;
  #latest;
  #announce;
  #resend;
  #answer = null; // the bubble that is being filled: {item, bubble, line, text, started}
  #lastAnswer = null;
  #hearing = null; // the utterance that is being recognized
  #asked = false; // the present turn's question is already shown
  #unanswered = false;
  #expecting = 0;
  #sent = new Map(); // id → item, of texts that may still change
  #tools = new Map(); // tool_id → the card of a running tool
  #pinned = true; // the reader is at the bottom, and wants to stay there
  #notice = null; // the last line that was no bubble: {item, kind, text, count}

  // `announce(text)` speaks to screen readers; `resend(id, text)` sends a text again.
  constructor(root, latest, { announce, resend }) {
    this.#root = root;
    this.#latest = latest;
    this.#announce = announce;
    this.#resend = resend;
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
    const item = this.#bubble("user", "You", text);
    this.#sent.set(id, item);
    this.#place(item);
    if (waiting) mark(item, "Waiting to be sent", "waiting");
    this.#asked = this.#unanswered = true;
    if (!waiting) this.#expect();
    this.#toEnd(); // whoever writes wants to see it
  }

  left(id) {
    const item = this.#sent.get(id);
    if (!item?.classList.contains("waiting")) return;
    mark(item, "", "");
    this.#expect();
  }

  doubt(id) {
    const item = this.#sent.get(id);
    if (!item) return;
    mark(item, "May not have arrived", "doubtful");
    const again = element("button", "link", "Send again");
    again.type = "button";
    again.onclick = () => {
      mark(item, "", "");
      this.#resend(id, item.querySelector(".text").textContent);
    };
    item.querySelector(".meta").append(again);
  }

  // What was heard. `text` is the whole utterance so far, and replaces what was shown of it.
  heard(text, final) {
    if (!this.#hearing) {
      if (!text.trim()) return;
      this.#hearing = this.#bubble("user", "You", "");
      this.#hearing.classList.add("heard");
      // Recognition can be later than the answer that it led to. The question still belongs above it, unless that
      // answer's question is there already: then this is somebody speaking into it.
      if (this.#answer && !(this.#answer.started && this.#asked)) this.#answer.item.before(this.#hearing);
      else this.#place(this.#hearing);
      this.#asked = true;
    }
    const item = this.#hearing;
    item.querySelector(".text").textContent = text.trim();
    item.classList.toggle("partial", !final);
    if (final) {
      this.#hearing = null;
      if (!text.trim()) item.remove();
      else if (item === this.#root.lastElementChild) {
        this.#unanswered = true;
        this.#expect();
      }
    }
    this.#follow();
  }

  // The connection went away in the middle of an utterance: nobody will recognize the rest of it.
  hush() {
    if (!this.#hearing) return;
    this.#hearing.classList.remove("partial");
    mark(this.#hearing, "Not heard to the end", "interrupted");
    this.#hearing = null;
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
    finish(tool.card, seconds < 0.1 ? "done" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`, "done");
    const label = truncated ? "Result (the beginning of it)" : "Result";
    tool.card.append(element("p", "tool-label", label), element("pre", "", pretty(result)));
    this.#follow();
  }

  // The turn is over. `aloud`: the reader has heard the answer, and need not be told it again.
  ended({ interrupted = false, aloud = false, why = "Interrupted" } = {}) {
    // What was interrupted is an earlier answer, of which the last words were still being heard. This one is to come.
    if (interrupted && this.expecting && this.#unanswered) return;
    const answer = this.#answer;
    this.#answer = null;
    clearTimeout(this.#expecting);
    if (answer && !answer.started) {
      answer.item.remove();
      this.#unanswered = false;
    } else if (answer) {
      answer.item.classList.remove("open");
      this.#lastAnswer = answer;
      if (interrupted) this.markInterrupted(why);
      if (!aloud && answer.text) this.#announce(`Agent: ${answer.text}${interrupted ? ` (${why})` : ""}`);
      const last = this.#root.lastElementChild;
      this.#asked = last.classList.contains("user");
      // Something was asked while this answer was still going on.
      if (this.#unanswered && this.#asked && !this.#hearing && !last.classList.contains("waiting")) this.#expect();
    }
    this.#follow();
  }

  markInterrupted(why = "Interrupted") {
    if (!this.#lastAnswer) return;
    mark(this.#lastAnswer.item, why, "interrupted");
  }

  // The connection was lost and is back, and something may have been missed; with `news`, something was.
  missed(news) {
    for (const { card } of this.#tools.values()) finish(card, "answer not seen", "unknown");
    if (this.answering) this.ended({ interrupted: true, why: "The connection was lost here" });
    else {
      this.ended();
      if (news) this.note("gap", "Something was said meanwhile that is not shown here.");
    }
  }

  // No answer can come now (the connection is gone, or the agent has reported an error).
  unexpect() {
    if (this.expecting) this.ended();
    this.#unanswered = false;
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

  #bubble(side, who, text) {
    const item = element("div", `message ${side}`);
    const bubble = element("div", "bubble");
    bubble.append(element("span", "visually-hidden", `${who}: `));
    if (side === "user") bubble.append(element("div", "text", text));
    const meta = element("div", "meta");
    const now = new Date();
    const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = now.toISOString();
    meta.append(time, element("span", "mark"));
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

  #open() {
    const item = this.#bubble("agent", "Agent");
    item.classList.add("expected");
    this.#answer = { item, bubble: item.firstChild, line: null, text: "", started: false };
    this.#place(item);
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
    this.#expecting = setTimeout(() => this.unexpect(), EXPECT_TIMEOUT);
    this.#follow();
  }

  #place(item) {
    this.#root.querySelector("#welcome")?.remove();
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
    if (this.#root.querySelector("#welcome")) return; // it is read from its top
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

// A word beside the time. Its line is always there, so nothing moves when it appears.
function mark(item, text, className) {
  item.classList.remove("waiting", "doubtful", "interrupted");
  if (className) item.classList.add(className);
  item.querySelector(".meta .mark").textContent = text;
  item.querySelector(".meta .link")?.remove();
}

function finish(card, text, className) {
  card.classList.remove("unknown");
  card.classList.add(className);
  card.querySelector(".tool-state").textContent = text;
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
