// The box to write in.

export const MAX_TEXT = 32 * 1024; // bytes of UTF-8: the server takes no longer text

export function bytesOf(text) {
  return new TextEncoder().encode(text).length;
}

// Makes the box as high as its text.
export function fit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}

// Enter sends; Shift+Enter breaks the line.
export function sendOnEnter(box, button) {
  box.addEventListener("keydown", (event) => {
    // While an input method is composing, Enter chooses a word. Safari marks such a key only by the code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!button.disabled) box.form.requestSubmit();
  });
}
