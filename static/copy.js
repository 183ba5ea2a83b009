// Copies texts, and the buttons that do.

import { announce } from "./announcer.js";
import { element } from "./elements.js";
import { icon, iconButton } from "./icons.js";

const SHOWN = 2000; // ms for which a button says that it has copied

// Returns whether it was allowed.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers have no clipboard on an insecure origin, and may refuse it elsewhere.
    return copySelected(text);
  }
}

// The older way: the browser copies what is selected.
function copySelected(text) {
  const focused = document.activeElement;
  const box = element("textarea", "visually-hidden");
  box.value = text;
  (focused?.closest("dialog") ?? document.body).append(box); // outside of an open dialog nothing can be selected
  box.select();
  const isDone = document.execCommand("copy");
  box.remove();
  focused?.focus({ preventScroll: true });
  return isDone;
}

// A button that copies what `text()` returns; `label` says what that is.
export function copyButton(label, text) {
  let timer = 0;
  const button = iconButton("copy", label, "action", async () => {
    const isDone = await copy(text());
    announce(isDone ? "Copied" : "This browser does not let the page copy.");
    if (!isDone) return;
    button.replaceChildren(icon("done"));
    clearTimeout(timer);
    timer = setTimeout(() => button.replaceChildren(icon("copy")), SHOWN);
  });
  return button;
}
