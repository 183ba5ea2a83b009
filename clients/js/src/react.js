// A conversation as a React hook. React itself is not a dependency of this package: only this file needs it.

import { useMemo, useSyncExternalStore } from "react";

import { connect } from "./conversation.js";
import { EMPTY } from "./state.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

// A conversation that is open while a component shows it.
class Store {
  /** @type {Conversation | null} */
  #conversation = null;
  #users = 0;
  #options;

  constructor(options) {
    this.#options = options;
  }

  get conversation() {
    return (this.#conversation ??= connect(this.#options));
  }

  subscribe = (/** @type {() => void} */ listener) => {
    this.#users++;
    const end = this.conversation.subscribe(listener);
    return () => {
      end();
      this.#users--;
      setTimeout(() => this.#closeUnused()); // in its strict mode, React comes back at once
    };
  };

  snapshot = () => this.#conversation?.state ?? EMPTY;

  #closeUnused() {
    if (this.#users) return;
    this.#conversation?.close();
    this.#conversation = null;
  }
}

/**
 * Begins a conversation, and ends it with the component. Other options of the same names and values are the same
 * conversation.
 *
 * @param {import("./types.js").ConnectOptions} options
 * @returns {{ state: import("./types.js").State, conversation: () => Conversation }} `conversation()` is for event
 *   handlers and effects: `conversation().say(text)`
 */
export function useRelay(options) {
  const { url, user, session, name, audio } = options;
  const store = useMemo(() => new Store(options), [String(url), user, session, name, audio]);
  const state = useSyncExternalStore(store.subscribe, store.snapshot, () => EMPTY);
  return { state, conversation: () => store.conversation };
}
