// Names that nobody else has, and the ones that this browser keeps.

// Not randomUUID(): browsers have that on secure origins only.
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The random id that this browser has under `key`; made when it is first asked for. Where storage is switched off, it
// lasts as long as the page.
export function keptId(key) {
  const fresh = randomId();
  try {
    const known = localStorage.getItem(key) ?? fresh;
    localStorage.setItem(key, known);
    return known;
  } catch {
    return fresh;
  }
}

export function sessionStorageOrNothing() {
  try {
    return window.sessionStorage;
  } catch {
    return { getItem: () => null, setItem: () => {} };
  }
}
