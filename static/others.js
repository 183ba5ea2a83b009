// The others in the conversation: how many are here, and who of them is writing. They are told the same of this page.

const PAUSE = 3000; // ms without a key: no longer writing
const FORGET = 60000; // ms after which somebody who was writing, and was not heard of since, is not
const SHOW = 1000; // ms in which comings and goings add up: a reload is both
const ANNOUNCE = 3000; // ms without a change, before it is worth a sentence

export class Others {
  #send;
  #on;
  #writing = new Map(); // connection_id → the timer that forgets it
  #present = 0;
  #announced = 0;
  #showing = 0;
  #announcing = 0;
  #told = false; // that one writes
  #pause = 0;

  // `send(type)` returns whether anybody heard it. `on` has here(count), how many are connected, this page included;
  // writing(count), how many others write; and announce(count).
  constructor({ send, on }) {
    this.#send = send;
    this.#on = on;
  }

  get here() {
    return this.#present;
  }

  // A new socket: nobody there knows yet that one writes here.
  greeted(count) {
    this.#told = false;
    this.#forget();
    this.#count(count);
  }

  // The connection is lost, and nobody knows how many there are now.
  lost() {
    clearTimeout(this.#showing);
    clearTimeout(this.#announcing);
    this.#showing = 0;
    this.#forget();
    this.#on.here(0);
  }

  present({ left, connections }) {
    for (const id of left) this.writes(id, false);
    this.#count(connections);
  }

  writes(id, writing) {
    clearTimeout(this.#writing.get(id));
    if (writing) this.#writing.set(id, setTimeout(() => this.writes(id, false), FORGET));
    else if (!this.#writing.delete(id)) return;
    this.#on.writing(this.#writing.size);
  }

  // The text in the box has changed.
  wrote(text) {
    clearTimeout(this.#pause);
    if (!text.trim()) return this.stopped();
    this.#pause = setTimeout(() => this.stopped(), PAUSE);
    this.#told ||= this.#send("typing_start");
  }

  stopped() {
    clearTimeout(this.#pause);
    if (this.#told) this.#send("typing_stop");
    this.#told = false;
  }

  #forget() {
    for (const id of [...this.#writing.keys()]) this.writes(id, false);
  }

  #count(count) {
    this.#present = count;
    this.#showing ||= setTimeout(() => {
      this.#showing = 0;
      this.#on.here(this.#present);
    }, SHOW);
    clearTimeout(this.#announcing);
    this.#announcing = setTimeout(() => {
      if (this.#present !== (this.#announced || 1)) this.#on.announce(this.#present);
      this.#announced = this.#present;
    }, ANNOUNCE);
  }
}
