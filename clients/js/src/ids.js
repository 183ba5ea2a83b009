// Not randomUUID(): browsers have that on secure origins only.
/** @returns {string} 32 random characters */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
