// Whole messages, as a history tells them: items of the conversation, and what is marked in them.

import { answerText } from "./answer.js";
import { bubble, completeTool, mark, setTime, shows, toolCard } from "./bubbles.js";

// The item of a whole message, {role, text, id, who, timestamp, interrupted, unanswered, cut, tools}.
export function itemOf({ role, text, id, who, timestamp, tools = [], ...marks }) {
  const item =
    role === "agent"
      ? bubble(role, "Agent", { text: answerText(text), now: false })
      : bubble(role, who || "You", { text, id, other: Boolean(who), now: false });
  if (timestamp) setTime(item, new Date(timestamp));
  item.querySelector(".text").before(...tools.filter(isShown).map(cardOf));
  retell(item, marks);
  return item;
}

// Whether a tool has a card in its answer. One that waits for the user has a card of its own.
const isShown = ({ pending }) => !pending;

// Shows in an item of the conversation what was given of an answer before, and is going on.
export function goOnWith(conversation, item, { text, timestamp, tools = [] }) {
  if (timestamp) setTime(item, new Date(timestamp));
  for (const tool of tools.filter(isShown)) {
    conversation.toolStarted(tool);
    if (tool.result !== null) conversation.toolCompleted(tool);
  }
  conversation.addToAnswer(text);
}

function cardOf(tool) {
  const card = toolCard(tool);
  completeTool(card, tool, 0);
  if (tool.result === null) card.querySelector(".tool-state").textContent = "no result";
  return card;
}

// Marks an item as the history does. `cut`: the server has lost the answer.
function retell(item, { interrupted, unanswered, cut }) {
  const text = cut ? "Cut off" : interrupted ? "Interrupted" : unanswered ? "Not answered" : "";
  if (text) mark(item, text, "interrupted");
}

// Lets those items be that show the first messages of a history already, and returns how many these are.
export function keepSame(items, lines) {
  const differs = lines.findIndex((line, index) => !items[index] || !shows(items[index], line));
  const same = differs < 0 ? lines.length : differs;
  for (const [index, line] of lines.slice(0, same).entries()) {
    if (items[index].classList.contains("waiting")) mark(items[index], "", "");
    retell(items[index], line);
  }
  return same;
}
