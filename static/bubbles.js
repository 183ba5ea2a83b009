// The parts of a conversation on the page: bubbles, cards of tools, marks. Everything is set as text, never as markup.

import { answerActions } from "./actions.js";
import { element, link } from "./elements.js";

const sources = new WeakMap(); // the node of a text → a function that returns what it was drawn from

// The item of a message. `side`: user or agent. `who` is visible in the messages of other users (`other`); in all
// others it is for screen readers only. `text` is a string, or the node of an answer's. `now`: the present time is shown. For
// messages from before, see setTime().
export function bubble(side, who, { text = null, id = "", other = false, now = true } = {}) {
  const item = element("div", `message ${side}`);
  if (id) item.dataset.id = id;
  item.classList.toggle("other", other);
  const inner = element("div", "bubble");
  const name = element("span", other ? "who" : "visually-hidden", who);
  name.append(element("span", "visually-hidden", ": "));
  inner.append(name);
  if (text !== null) inner.append(text instanceof Node ? text : element("div", "text", text));
  const meta = element("div", "meta");
  if (now) meta.append(clock());
  meta.append(element("span", "mark"));
  if (side === "agent") meta.append(answerActions(() => sourceOf(item)));
  item.append(inner, meta);
  return item;
}

export function setText(item, text) {
  item.querySelector(".text").textContent = text;
}

// A word beside the time, and the class that belongs to it. The line is always there, so that nothing moves.
export function mark(item, text, className) {
  item.classList.remove("waiting", "interrupted");
  if (className) item.classList.add(className);
  item.querySelector(".meta .mark").textContent = text;
}

// The text of a node is drawn: `source()` is what from.
export function keepSource(node, source) {
  sources.set(node, source);
}

// What an item says, or the node of a text in it, as it was written.
export function sourceOf(item) {
  const nodes = item.matches(".text") ? [item] : item.querySelectorAll(".text");
  return Array.from(nodes, (node) => sources.get(node)?.() ?? node.textContent).join("");
}

// Whether an item shows this line of a history. White space is not the same in both.
export function shows(item, { role, text, open }) {
  if (open || !item.classList.contains(role) || item.matches(".partial, :has(.tool:not(.done))")) return false;
  return sourceOf(item).replace(/\s+/g, "") === text.replace(/\s+/g, "");
}

// Three dots in the place of an answer that is expected.
export function dots() {
  const node = element("div", "dots");
  node.setAttribute("aria-hidden", "true");
  node.append(element("i"), element("i"), element("i"));
  return node;
}

// The card of a tool that runs.
export function toolCard({ tool_name, arguments: args, truncated }) {
  const card = element("details", "tool");
  const summary = element("summary");
  const spinner = element("span", "spinner");
  spinner.setAttribute("aria-hidden", "true");
  summary.append(spinner, element("span", "tool-name", tool_name), element("span", "tool-state", "running"));
  const label = truncated ? "Arguments (the beginning of them)" : "Arguments";
  card.append(summary, element("p", "tool-label", label), element("pre", "", pretty(args)));
  return card;
}

export function askTool(card) {
  card.classList.add("asks");
  card.querySelector(".tool-state").textContent = "asks first";
}

export function completeTool(card, { result, truncated }, seconds) {
  card.classList.add("done");
  const state = seconds < 0.1 ? "done" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  card.querySelector(".tool-state").textContent = state;
  const label = truncated ? "Result (the beginning of it)" : "Result";
  card.append(element("p", "tool-label", label), element("pre", "", pretty(result)));
}

// What an answer is based on, {sources: [{title, url}], searches}; null: there is nothing to show.
export function sourceList({ sources = [], searches = [] }) {
  if (!sources.length && !searches.length) return null;
  const list = element("div", "sources");
  if (sources.length) {
    const items = element("ul");
    for (const { title, url } of sources) {
      const item = element("li");
      item.append(link(url, title || url));
      items.append(item);
    }
    list.append(element("p", "tool-label", "Sources"), items);
  }
  if (searches.length) list.append(element("p", "searches", `Searched for: ${searches.join(" · ")}`));
  return list;
}

// Shows when a message was written or said. Of another day, the day is shown, too.
export function setTime(item, when) {
  item.querySelector(".meta time")?.remove();
  item.querySelector(".meta").prepend(clock(when));
}

function clock(when = new Date()) {
  const isToday = when.toDateString() === new Date().toDateString();
  const day = isToday ? {} : { month: "short", day: "numeric" };
  const time = element("time", "", when.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" }));
  time.dateTime = when.toISOString();
  return time;
}

export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
