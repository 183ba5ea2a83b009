// Push to talk that this user has chosen. It is not enough to send no sound while the button is up: the model would still
// end the turn at a pause. So its detection of speech is switched off. That is a property of the conversation, and changes
// the turns of all in it: it is done only if nobody else is there, when a call begins or when push to talk is chosen in one.

/** @typedef {import("./conversation.js").Conversation} Conversation */

// Invariant: `isOwn`, and what is kept of a conversation, say that this browser's choice has set push to talk in it. Only
// then does the choice of another mode switch it off: what the operator or another client has set stays.
export class ManualTurns {
  isOwn = false;
  #live;
  #place;
  #storage;
  #mode;
  /** @type {boolean | null} */
  #sent = null; // what the server has not answered yet
  #isPending = false; // there was no connection when it was to be decided

  /**
   * @param {Conversation} live
   * @param {string} place together with the id of a session, it names a conversation
   * @param {Pick<Storage, "getItem" | "setItem" | "removeItem"> | undefined} storage
   */
  constructor(live, place, storage) {
    this.#live = live;
    this.#place = place;
    this.#storage = storage;
    this.#mode = live.state.mode;
    live.on("hello", () => this.#greeted());
    live.on("configured", () => this.#configured());
    live.on("error", () => (this.#sent = null)); // it may have been refused
    live.on("call", ({ state }) => state === "on" && this.#decide());
    live.on("choices", () => this.#chosen());
  }

  #greeted() {
    this.#sent = null;
    if (this.#live.state.mustPushToTalk) this.#findOwn();
    else if (this.#isKept || this.isOwn) {
      this.#keep(false); // the server has lost it
      this.#isPending = true;
    }
    if (this.#isPending) this.#decide();
  }

  #configured() {
    const { mode, mustPushToTalk } = this.#live.state;
    this.#sent = null;
    if (mustPushToTalk) this.#findOwn();
    else if (mode !== "push_to_talk") this.#keep(false); // else this may answer what was sent before
  }

  #chosen() {
    const { mode } = this.#live.state;
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#decide(true);
  }

  // Only the user's doing, and the first frame of a socket, lead here: two windows with different modes do not answer each
  // other's changes for ever.
  #decide(isChosen = false) {
    const { connection, mode, mustPushToTalk, call, connections, role } = this.#live.state;
    this.#isPending = !["connected", "modelling"].includes(connection.name);
    const wanted = mode === "push_to_talk";
    if (this.#isPending || role === "listen" || wanted === (this.#sent ?? mustPushToTalk)) return;
    const isDue = wanted ? call === "on" && connections === 1 : this.isOwn && (isChosen || call === "on");
    if (!isDue || !this.#live.configure({ pushToTalk: wanted })) return;
    this.#sent = wanted;
    if (wanted) this.#keep(true);
  }

  // ---- what is kept

  get #key() {
    return `relay.push_to_talk ${this.#place} ${this.#live.state.sessionId}`;
  }

  get #isKept() {
    try {
      return Boolean(this.#storage?.getItem(this.#key));
    } catch {
      return false; // refused
    }
  }

  // Another window of this browser may have set it.
  #findOwn() {
    this.#keep(this.isOwn || this.#isKept);
  }

  #keep(isOwn) {
    this.isOwn = isOwn;
    try {
      if (isOwn) this.#storage?.setItem(this.#key, "own");
      else this.#storage?.removeItem(this.#key);
    } catch {
      // it is full, or refused: it lasts as long as the page
    }
  }
}
