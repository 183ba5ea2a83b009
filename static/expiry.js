// What the page does when its token is about to expire: it asks the page around it for another one, and tells the user
// if none comes.

import { askForAnother, whenRenewed } from "./token.js";

const WAIT = 5; // seconds in which another token may come before the user is told

export class Expiry {
  #tell;
  #timer = 0;
  #isTold = false;

  // `tell(why)` shows why the connection is about to end; with an empty text, it is not any more.
  constructor(tell) {
    this.#tell = tell;
    whenRenewed(() => this.over());
  }

  // The token expires in so many seconds.
  soon(seconds) {
    askForAnother(seconds);
    clearTimeout(this.#timer);
    const left = Math.round(Math.max(seconds - WAIT, 0));
    const text = `Your access ends ${left ? `in ${left} seconds` : "now"}. To go on, open the link again that has brought you here.`;
    this.#timer = setTimeout(() => {
      this.#isTold = true;
      this.#tell(text);
    }, Math.min(seconds, WAIT) * 1000);
  }

  // There is another token, or the connection has ended.
  over() {
    clearTimeout(this.#timer);
    if (this.#isTold) this.#tell("");
    this.#isTold = false;
  }
}
