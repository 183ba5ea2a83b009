// Speaks to screen readers, through the page's live region.

const KEPT = 10000; // ms

// A screen reader does not speak a live region that is set to the same text again, and of two texts at the same moment
// it speaks only the second. So each text is a new paragraph, which is removed later.
export function announce(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  document.getElementById("announcer").append(paragraph);
  setTimeout(() => paragraph.remove(), KEPT);
}
