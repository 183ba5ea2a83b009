// Whole messages from before the page was loaded, as items of the conversation.

import { answerText } from "./answer.js";
import { bubble, shows } from "./bubbles.js";

// The item of a whole message, {role, text, who}.
export function itemOf({ role, text, id, who }) {
  if (role === "agent") return bubble(role, "Agent", { text: answerText(text), now: false });
  return bubble(role, who || "You", { text, id, other: Boolean(who), now: false });
}

// How many of the items that are shown already are the first messages of a history.
export function countSame(items, lines) {
  const differs = lines.findIndex((line, index) => !items[index] || !shows(items[index], line));
  return differs < 0 ? lines.length : differs;
}
