// What this browser keeps for the page.

import { randomId } from "../clients/js/src/ids.js";

// The random id that this browser keeps under `key` for the page's path; it is made at the first call. Where storage is
// switched off, it lasts as long as the page. Two relays of one origin get two ids. Before, they shared one: where there
// is one of that time, it is used on.
export function keptId(key) {
  const fresh = randomId();
  const ofPath = `${key} ${new URL(".", document.baseURI).pathname}`;
  try {
    const known = localStorage.getItem(ofPath) ?? localStorage.getItem(key) ?? fresh;
    localStorage.setItem(ofPath, known);
    return known;
  } catch {
    return fresh;
  }
}

// A storage for all tabs; undefined where storage is switched off.
export function localStorageOrNothing() {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
}

// A storage for this tab; it forgets everything where storage is switched off.
export function sessionStorageOrNothing() {
  try {
    return window.sessionStorage;
  } catch {
    return { getItem: () => null, setItem: () => {}, removeItem: () => {} };
  }
}
