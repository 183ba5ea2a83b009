// What is in the text box and was not sent yet. It is there again when the page is loaded again.

import { sessionStorageOrNothing } from "./identity.js";

const PAUSE = 300; // ms after a change until it is stored

// Invariant: what is stored under `#key` is what the box has, or had not long ago; an empty box stores nothing.
export class Draft {
  #box;
  #fit;
  #key = "";
  #timer = 0;
  #store = sessionStorageOrNothing(); // of this tab: two tabs may write in one conversation

  // `fit()` is called when the box has got its text back.
  constructor(box, fit) {
    this.#box = box;
    this.#fit = fit;
    box.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#keep(), PAUSE);
    });
    // What was sent is gone from the box when the form's other listeners have run.
    box.form.addEventListener("submit", () => setTimeout(() => this.#keep()));
    addEventListener("pagehide", () => this.#keep());
    document.addEventListener("visibilitychange", () => document.hidden && this.#keep());
  }

  // From now on the box is that of this conversation. An empty box gets its draft back; what is in the box goes along.
  of(conversation) {
    const key = `relay.draft ${location.pathname} ${conversation}`;
    if (key === this.#key) return;
    if (this.#key) this.#store.removeItem(this.#key);
    this.#key = key;
    if (this.#box.value) return this.#keep();
    this.#box.value = this.#store.getItem(key) ?? "";
    this.#fit();
  }

  #keep() {
    clearTimeout(this.#timer);
    try {
      if (this.#box.value) this.#store.setItem(this.#key, this.#box.value);
      else this.#store.removeItem(this.#key);
    } catch {
      // it is full
    }
  }
}
