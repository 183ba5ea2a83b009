// What can be done with a message: the small buttons under it.

import { copyButton } from "./copy.js";
import { element } from "./elements.js";

// The place for the buttons under an answer. `source()` returns the answer's Markdown, which is copied.
export function answerActions(source) {
  const place = element("span", "actions");
  place.append(copyButton("Copy this answer", source));
  return place;
}
