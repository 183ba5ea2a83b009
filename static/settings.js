// What the user has chosen, and the dialog in which it is chosen.
//
// A part of the page adds a fieldset to the form in index.html, fills it in with remembered(), and calls remember() when
// it changes: there is no button that saves.

const dialog = document.getElementById("settings");
const button = document.getElementById("settings-button");

const keyOf = (key) => `relay.settings.${key} ${new URL(".", document.baseURI).pathname}`; // one for each relay of an origin

const kept = new Map(); // what was chosen since the page was loaded: all there is where storage is refused

// What was chosen, as it was given to remember(); `fallback`: nothing was chosen.
export function remembered(key, fallback) {
  if (kept.has(key)) return kept.get(key);
  try {
    return JSON.parse(localStorage.getItem(keyOf(key))) ?? fallback;
  } catch {
    return fallback;
  }
}

// `value` is any JSON value; null forgets it.
export function remember(key, value) {
  if (value === null) kept.delete(key);
  else kept.set(key, value);
  try {
    if (value === null) localStorage.removeItem(keyOf(key));
    else localStorage.setItem(keyOf(key), JSON.stringify(value));
  } catch {
    // It lasts as long as the page.
  }
}

// Opens the dialog when its button is pressed. Escape, a press beside it and its own button close it.
export function offerSettings() {
  button.addEventListener("click", () => dialog.showModal());
  document.getElementById("settings-close").addEventListener("click", () => dialog.close());
  document.getElementById("settings-form").addEventListener("submit", (event) => event.preventDefault()); // by Enter
  // Some browsers give a button no focus when it is clicked, and so have none to give back.
  dialog.addEventListener("close", () => button.focus());
}
