// The conversation as the user sees it, in the order in which a person reads it.
//
// The server sends a stream of chunks. Here they become bubbles: one for each text or utterance of a user, and one for
// each answer, with the tools that the answer used inside it.
//
// `who` is the name of another user who has written or spoken; it is empty for texts and speech of this page.

import { AnswerText, shorten } from "./answer.js";
import { askTool, bubble, completeTool, dots, mark, setText, sourceList, toolCard } from "./bubbles.js";
import { goOnWith, itemOf, keepSame } from "./history.js";
import { plain } from "./markdown.js";
import { Notices } from "./notices.js";
import { losePictures, pictureList } from "./pictures.js";
import { Scrolling } from "./scrolling.js";

const EXPECT_TIMEOUT = 30000; // ms; an agent may say nothing: then the three dots are removed

export class Conversation {
  #root;
  #announce;
  #welcome;
  // The answer of the present turn: {item, bubble, line, text, started}. Until it is `started` it is "expected": three
  // dots, which are always the last item.
  #answer = null;
  #lastAnswer = null;
  #hearing = new Map(); // speaker → the item of the utterance that is being recognized
  #asked = false; // the present turn's question is already shown
  #unanswered = false; // a question was asked to which no answer has started
  #expecting = 0;
  #unconfirmed = new Map(); // id → item, of texts that may not have arrived
  #tools = new Map(); // tool_id → {card, start} of a running tool
  #scrolling;
  #notices;
  #building = false; // a whole history is being shown: the page is laid out once, after it

  // New items belong to another conversation: they stay in their place when the history of this one is shown.
  aside = false;

  // `announce(text)` speaks to screen readers.
  constructor(root, latest, { announce }) {
    this.#root = root;
    this.#announce = announce;
    this.#welcome = root.querySelector("#welcome");
    this.#notices = new Notices({ place: (item) => this.#place(item), last: () => this.#lastSettled(), announce });
    this.#scrolling = new Scrolling(root, latest);
    // The pane changes its height when the keyboard opens, a notice appears or the window turns.
    new ResizeObserver(() => this.#scrolling.isAtEnd && this.#follow()).observe(root);
  }

  get answering() {
    return Boolean(this.#answer?.started);
  }

  get expecting() {
    return Boolean(this.#answer && !this.#answer.started);
  }

  // ---- the user

  typed(id, text, waiting, pictures = []) {
    const item = bubble("user", "You", { text, id });
    if (pictures.length) item.querySelector(".text").before(pictureList(pictures));
    this.#unconfirmed.set(id, item);
    this.#place(item);
    if (waiting) mark(item, "Waiting to be sent", "waiting");
    this.#asked = this.#unanswered = true;
    if (!waiting) this.#expect();
    this.#scrolling.toEnd(); // the writer wants to see the text
  }

  sent(id) {
    const item = this.#unconfirmed.get(id);
    if (item && this.aside) item.dataset.aside = "true"; // it may have been written before `aside` was set
    if (!item?.classList.contains("waiting")) return;
    mark(item, "", "");
    this.#unanswered = true;
    this.#expect();
  }

  // The connection was lost, and it is not known whether this text has arrived.
  unsent(id) {
    const item = this.#unconfirmed.get(id);
    if (!item) return;
    mark(item, "Waiting to be sent", "waiting");
    this.unexpect();
  }

  confirmed(id) {
    this.#unconfirmed.delete(id);
  }

  unpictured(id) {
    losePictures(this.#unconfirmed.get(id));
  }

  // All that came before this text in the conversation is shown now: the text moves below it.
  placed(id) {
    const item = this.#unconfirmed.get(id);
    if (item && item !== this.#lastSettled()) this.#place(item);
  }

  refused(id) {
    const item = this.#unconfirmed.get(id);
    if (item) mark(item, "Not answered", "interrupted");
    this.#unconfirmed.delete(id);
    // The question before it may still be answered.
    if (!item?.previousElementSibling?.matches(".user:not(.interrupted)")) this.unexpect();
  }

  // Another user has written a text.
  othersText(id, text, who) {
    this.#place(bubble("user", who, { text, id, other: true }));
    this.#asked = this.#unanswered = true;
    this.#expect();
    this.#follow();
  }

  // A transcript. `text` is the whole utterance so far, and replaces the text that was shown of it.
  heard(text, final, { speaker = "", who = "" } = {}) {
    let item = this.#hearing.get(speaker);
    if (!item) {
      if (!text.trim()) return;
      item = bubble("user", who || "You", { text: "", other: Boolean(who) });
      item.classList.add("heard");
      this.#hearing.set(speaker, item);
      // A transcript can come after its answer. The question still belongs above that answer, unless the answer has a
      // question already: then this is speech that interrupts it.
      if (this.#answer && !(this.#answer.started && this.#asked)) this.#answer.item.before(item);
      else this.#place(item);
      this.#asked = true;
    }
    setText(item, text.trim());
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

  // The connection has ended in the middle of an utterance: the rest of it will not be recognized.
  stopHearing() {
    for (const item of this.#hearing.values()) {
      item.classList.remove("partial");
      mark(item, "Not heard to the end", "interrupted");
    }
    this.#hearing.clear();
  }

  // ---- the agent

  addToAnswer(text) {
    if (!text) return;
    const answer = this.#begin();
    if (!answer.line) {
      answer.line = new AnswerText({ around: (draw) => this.#follow(draw()) });
      answer.bubble.append(answer.line.element);
      text = text.trimStart();
    }
    answer.line.append(text);
    answer.text += text;
  }

  toolStarted(frame) {
    const card = toolCard(frame);
    this.#tools.set(frame.tool_id, { card, start: performance.now() });

    // Tools go on after their answer was stopped, and their cards still belong to it.
    const last = this.#root.lastElementChild;
    const late = last === this.#lastAnswer?.item && last.classList.contains("interrupted");
    const answer = late ? this.#lastAnswer : this.#begin();
    answer.bubble.append(card);
    answer.line?.finish();
    answer.line = null; // words that follow stand below the card
    this.#follow();
  }

  // The tool runs only if the user allows it, so that it may take long.
  toolAsks(toolId) {
    const tool = this.#tools.get(toolId);
    if (tool) askTool(tool.card);
  }

  toolCompleted(frame) {
    const tool = this.#tools.get(frame.tool_id);
    if (!tool) return;
    this.#tools.delete(frame.tool_id);
    completeTool(tool.card, frame, (performance.now() - tool.start) / 1000);
    this.#follow();
  }

  // The turn is over. `aloud`: the reader has heard the answer, so that screen readers need not speak it.
  ended({ interrupted = false, aloud = false, grounding = {} } = {}) {
    // An earlier answer was interrupted, which was still being played. The present one has not started.
    if (interrupted && this.expecting && this.#unanswered) return;
    clearTimeout(this.#expecting);
    if (this.expecting) {
      this.#answer.item.remove();
      this.#answer = null;
      this.#unanswered = false;
    } else if (this.#answer) {
      const { text } = this.#answer;
      const sources = sourceList(grounding);
      if (sources) this.#answer.bubble.append(sources);
      this.#close();
      if (interrupted) this.markInterrupted();
      if (!aloud && text) this.#announce(`Agent: ${plain(text)}${interrupted ? " (Interrupted)" : ""}`);
      const last = this.#root.lastElementChild;
      this.#asked = last.classList.contains("user");
      // A question was asked during this answer.
      if (this.#unanswered && this.#asked && !this.#hearing.size && !last.classList.contains("waiting")) {
        this.#expect();
      }
    }
    this.#follow();
  }

  markInterrupted() {
    if (this.#lastAnswer) mark(this.#lastAnswer.item, "Interrupted", "interrupted");
  }

  // Of the last answer the users have heard this only.
  shortened(text) {
    const item = [...this.#root.querySelectorAll(".message.agent:not(.open, .expected, [data-aside])")].at(-1);
    if (item) shorten(item, text.trimStart());
  }

  // The rest of what is open will not come here: what follows is another conversation.
  cutOff() {
    if (!this.answering) return;
    this.#tools.clear();
    this.#close();
    mark(this.#lastAnswer.item, "Cut off", "interrupted");
  }

  // No answer can come now (the connection is gone, or the agent has reported an error).
  unexpect() {
    if (this.expecting) this.ended();
    this.#unanswered = false;
  }

  // ---- the whole conversation

  // Shows the conversation as the server knows it, [{role, text, id, open, who}, …]. The texts with these ids are not in
  // it yet, and follow; others of this page may be in it and not be confirmed yet. Items that already show the same are
  // kept, with their tools and notices.
  history(lines, ids) {
    lines = lines.filter(({ text, tools }) => text.trim() || tools?.length);
    const coming = new Set(ids.map((id) => this.#unconfirmed.get(id)));
    const isOfIt = (item) => item.matches(".message:not(.expected)") && !item.dataset.aside && !coming.has(item);
    const shown = [...this.#root.children].filter(isOfIt);
    const same = keepSame(shown, lines);
    const items = new Map(shown.slice(0, same).map((item, index) => [lines[index].id, item])); // of the texts in it, by id
    const aside = this.#empty(shown[same - 1]);
    this.#building = true;
    for (const line of lines.slice(same)) {
      if (line.open) {
        this.#open({ now: false });
        goOnWith(this, this.#answer.item, line);
      } else {
        const item = itemOf(line);
        if (line.role === "user") items.set(line.id, item);
        this.#place(item);
      }
    }
    this.#building = false;
    this.#asked = lines.at(-1)?.role === "user";
    this.#root.append(...aside);
    this.#restore(ids, items);
  }

  // A user's last text, or the one with this id, is taken back with all that follows. Texts on their way stay.
  rewound(id) {
    this.#unconfirmed.delete(id);
    const coming = new Set([...this.#unconfirmed.values(), this.#answer?.item]);
    const items = [...this.#root.children].filter((item) => !coming.has(item) && !item.dataset.aside);
    const named = items.findIndex((item) => id && item.dataset.id === id);
    const at = named < 0 ? items.findLastIndex((item) => item.matches(".message.user")) : named;
    if (at >= 0) for (const item of items.slice(at)) item.remove();
    this.#lastAnswer = null;
    this.#tools.clear();
  }

  // A user has emptied the conversation.
  cleared(why, ids) {
    this.#empty();
    this.#restore(ids);
    this.note("cleared", why);
  }

  // Removes all items that follow `last`; returns those that belong to another conversation.
  #empty(last = null) {
    clearTimeout(this.#expecting);
    if (this.answering) this.#close();
    this.#answer?.item.remove();
    this.#answer = this.#lastAnswer = null;
    this.#unanswered = this.#asked = false;
    this.#hearing.clear();
    this.#tools.clear();
    const items = [...this.#root.children];
    const rest = items.slice(items.indexOf(last) + 1);
    for (const item of rest) item.remove();
    return rest.filter((item) => item.dataset.aside);
  }

  // Puts back the texts that were written here and are still on their way. `items`: id → item, of texts that are shown.
  #restore(ids, items = new Map()) {
    const coming = [...this.#unconfirmed].filter(([id]) => ids.includes(id));
    const shown = [...items].filter(([id]) => this.#unconfirmed.has(id));
    this.#unconfirmed = new Map([...shown, ...coming]);
    for (const [, item] of coming) this.#place(item);
    if (coming.length) this.#asked = this.#unanswered = true;
    if (!this.#root.childElementCount) this.#root.append(this.#welcome);
    this.#follow();
  }

  // ---- everything else

  // A card between the bubbles.
  card(item) {
    this.#place(item);
  }

  // A line between the bubbles. `kind` is a class.
  note(kind, text) {
    this.#notices.add(kind, text);
  }

  // Sound that was dropped, "up" or "down".
  lost(direction, milliseconds) {
    this.#notices.addLoss(direction, milliseconds);
    this.#follow();
  }

  // ---- parts

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
    const item = bubble("agent", "Agent", options);
    item.classList.add("expected");
    this.#answer = { item, bubble: item.firstChild, line: null, text: "", started: false };
    this.#place(item);
  }

  #close() {
    this.#answer.item.classList.remove("open");
    this.#answer.line?.finish();
    this.#lastAnswer = this.#answer;
    this.#answer = null;
  }

  // Three dots where the answer will be.
  #expect() {
    if (this.answering) return;
    if (this.#answer) this.#root.append(this.#answer.item);
    else {
      this.#open();
      this.#answer.bubble.append(dots());
    }
    clearTimeout(this.#expecting);
    // No timeout: over HTTP, the request tells when no answer comes.
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

  #follow() {
    if (!this.#building && !this.#welcome.isConnected) this.#scrolling.follow(); // the welcome is read from its top
  }
}
