// How many are connected to the conversation. A reload is a leaving and a coming, so nothing is shown at once.

const SHOW = 1000; // ms in which changes add up
const ANNOUNCE = 3000; // ms without a change, before it is worth a sentence

export class Others {
  #on;
  #present = 0;
  #announced = 0;
  #showing = 0;
  #announcing = 0;

  // `on` has here(count), how many are connected, this page included; and announce(count).
  constructor(on) {
    this.#on = on;
  }

  get here() {
    return this.#present;
  }

  // The connection is lost, and nobody knows how many there are now.
  lost() {
    clearTimeout(this.#showing);
    clearTimeout(this.#announcing);
    this.#showing = 0;
    this.#on.here(0);
  }

  count(connections) {
    this.#present = connections;
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
