// Messages from before those that are shown: the button above the first message reads them, and scrolling up does.

import { button } from "./elements.js";
import { itemOf } from "./history.js";

const NEAR = 200; // pixels from the top
const LABEL = "Show older messages";

// Invariant: the button is the first child of the messages if, and only if, there may be older ones.
export class OlderMessages {
  #root;
  #ask;
  #announce;
  #button = button(LABEL, "small-button older", () => this.#read());
  #place = ""; // where the messages that are shown begin; empty: there are no older ones
  #asked = false; // the answer is still to come
  #failed = false; // it is not asked again until the button is pressed
  #items = [];
  #whole = null; // while all are being read: the promise of readAll(), and how it is settled

  // `ask(place)` asks for the messages before a place, and returns whether there is a connection.
  constructor(root, { ask, announce }) {
    this.#root = root;
    this.#ask = ask;
    this.#announce = announce;
    root.addEventListener("scroll", () => this.#look(), { passive: true });
  }

  // Another history is shown, which begins at this place.
  begin(place) {
    this.#empty();
    this.#place = place;
    if (place) this.#root.prepend(this.#button);
    this.reset();
    this.#look();
  }

  // The messages are removed, and others will be shown.
  clear() {
    this.#empty();
    this.#asked = this.#failed = false;
  }

  // Reads all that there are. Rejects with an Error that can be shown.
  readAll() {
    const whole = (this.#whole ??= Promise.withResolvers());
    this.#failed = false;
    this.#goOn();
    return whole.promise;
  }

  // There is a new connection, which knows of no question.
  reset() {
    this.#asked = this.#failed = false;
    this.#button.textContent = LABEL;
    this.#goOn();
  }

  // Shows messages, [{role, text, who}, …], above all others. What the reader sees stays where it is.
  show(lines, place) {
    if (!this.#asked) return; // they were asked for before the conversation was emptied
    const root = this.#root;
    const items = lines.map(itemOf);
    const below = root.scrollHeight - root.scrollTop;
    this.#button.after(...items);
    this.#items.unshift(...items);
    this.#place = place;
    if (!place) this.#end();
    root.scrollTop = root.scrollHeight - below;
    if (!this.#whole) this.#announce(`${lines.length} older messages${place ? "" : ", the first ones"}`);
    this.reset();
    this.#look();
  }

  // Returns whether anything was asked for.
  failed(why) {
    if (!this.#asked) return false;
    this.#asked = false;
    this.#failed = true;
    this.#button.textContent = `${why} Try again`;
    this.#whole?.reject(new Error(why));
    this.#whole = null;
    return true;
  }

  // If all are to be read: reads the next ones, or tells that there are none.
  #goOn() {
    if (this.#whole && this.#place) return this.#read();
    this.#whole?.resolve();
    this.#whole = null;
  }

  #empty() {
    for (const item of this.#items) item.remove();
    this.#items = [];
    this.#end();
  }

  #look() {
    if (!this.#failed && this.#root.scrollTop <= NEAR) this.#read();
  }

  #read() {
    if (!this.#place || this.#asked) return;
    this.#asked = this.#ask(this.#place);
  }

  // Nothing is older: the button goes. If it had the focus, the reader goes on from the messages.
  #end() {
    const hadFocus = document.activeElement === this.#button;
    this.#place = "";
    this.#button.remove();
    if (hadFocus) this.#root.focus({ preventScroll: true });
  }
}
