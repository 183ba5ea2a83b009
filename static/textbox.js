// The box to write in.

export const MAX_TEXT = 32 * 1024; // bytes of UTF-8: the server refuses longer texts

export function bytesOf(text) {
  return new TextEncoder().encode(text).length;
}

// Makes the box as high as its text, up to the limit that the style sheet sets.
export function fit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

const touches = matchMedia("(hover: none) and (pointer: coarse)");

// Enter sends; Shift+Enter breaks the line. The keyboards of touch screens have no Shift+Enter, and a button beside the box:
// there Enter breaks the line. Ctrl+Enter and Cmd+Enter send everywhere.
export function sendOnEnter(box, button) {
  const hint = () => (box.enterKeyHint = touches.matches ? "enter" : "send");
  touches.addEventListener("change", hint);
  hint();
  box.addEventListener("keydown", (event) => {
    // While an input method is composing, Enter selects a word. Safari marks such a key only by the code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    if (touches.matches && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    if (!button.disabled) box.form.requestSubmit();
  });
  addEventListener("resize", () => fit(box)); // lines are broken elsewhere
}
