// Speaks to screen readers, through the page's live region.

const KEPT = 10000; // ms

// A live region that is set to the text it already has stays silent, and of two texts in one moment only the second is
// spoken. So each text is a paragraph of its own, which is removed later.
export function announce(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  document.getElementById("announcer").append(paragraph);
  setTimeout(() => paragraph.remove(), KEPT);
}
