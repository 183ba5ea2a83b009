// Tells messages to whoever wants to know: as state, as callbacks, and one after the other.

import { Feed } from "./feed.js";
import { EMPTY, reduce } from "./state.js";

/**
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").State} State
 */

export class Teller {
  /** @type {State} */
  #state = EMPTY;
  /** @type {Map<string, Set<(message: any) => void>>} */
  #handlers = new Map();
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {Set<Feed<Message>>} */
  #feeds = new Set();

  /**
   * All that is to be shown. It is another object after each change.
   *
   * @returns {State}
   */
  get state() {
    return this.#state;
  }

  /**
   * Calls `listener()` after each change of `state`.
   *
   * @param {() => void} listener
   * @returns {() => void} ends it
   */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  /**
   * Calls `handler(message)` with each message of a type, or with all: `"*"`.
   *
   * @template {Message["type"] | "*"} T
   * @param {T} type
   * @param {(message: T extends Message["type"] ? import("./types.js").MessageOf<T> : Message) => void} handler
   * @returns {() => void} ends it
   */
  on(type, handler) {
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  /**
   * The messages from now on, until `close()`. Those that are not taken yet wait in memory.
   *
   * @returns {AsyncIterableIterator<Message>}
   */
  [Symbol.asyncIterator]() {
    const feed = new Feed(() => this.#feeds.delete(feed));
    if (this.#state.connection.name === "closed") feed.end();
    else this.#feeds.add(feed);
    return feed;
  }

  /**
   * @protected
   * @param {Message} message
   */
  emit(message) {
    this.#state = reduce(this.#state, message);
    for (const feed of this.#feeds) feed.add(message);
    for (const type of [message.type, "*"]) {
      for (const handler of this.#handlers.get(type) ?? []) guarded(() => handler(message));
    }
    this.notify();
  }

  /** @protected */
  notify() {
    for (const listener of this.#listeners) guarded(listener);
  }

  /** @protected */
  endFeeds() {
    for (const feed of this.#feeds) feed.end();
  }
}

// What fails in somebody else's code is reported, and stops nothing here.
function guarded(call) {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
