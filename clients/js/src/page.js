// What a browser tells of its page. Elsewhere, as in Node, there is nothing to tell.

/**
 * `shown`: somebody looks at the page again. `online`: the network is back. `left`: the page was left, and the browser
 * keeps it for the way back, with all that is open in it; `returned`: this is the way back.
 *
 * @param {{ shown(): void, online(): void, left(): void, returned(): void }} on
 * @returns {() => void} ends it
 */
export function watchPage(on) {
  if (typeof document === "undefined") return () => {};
  const controller = new AbortController();
  const { signal } = controller;
  addEventListener("online", () => on.online(), { signal });
  document.addEventListener("visibilitychange", () => document.hidden || on.shown(), { signal });
  addEventListener("pagehide", ({ persisted }) => persisted && on.left(), { signal });
  addEventListener("pageshow", ({ persisted }) => persisted && on.returned(), { signal });
  return () => controller.abort();
}

/**
 * Calls `hidden()` when the page is left, for good or not, or is not looked at any more.
 *
 * @param {() => void} hidden
 * @returns {() => void} ends it
 */
export function whenLeft(hidden) {
  if (typeof document === "undefined") return () => {};
  const controller = new AbortController();
  const { signal } = controller;
  addEventListener("pagehide", hidden, { signal });
  document.addEventListener("visibilitychange", () => document.hidden && hidden(), { signal });
  return () => controller.abort();
}
