// The texts that were written on this page, from writing to the server's confirmation.
//
// Each text has a random id. It is sent again on every new socket until the server has confirmed it; the server takes
// each id once. Only an `ack` confirms a text: a history can show a text, with its id, that is not stored yet.
//
// A server that was restarted has lost the ids, and has only stored texts. Then a text has arrived if its words are in
// the conversation one time more than before.

export class Texts {
  #written = new Map(); // id → words, of all that was written here
  #unconfirmed = new Map(); // id → the text, {id, words, sent, tried, …}; its ids are among those of #written
  // words → how often users have said them in the conversation, as far as this page knows. Texts of this page count when
  // they are confirmed.
  #known = new Map();

  // Returns the text, {id, words, sent, tried, placed, …fields}. The sender sets `sent` (by the present socket) and
  // `tried` (by any socket). `placed`: it is in the conversation that is shown, and not only on its way there.
  add(id, words, fields = {}) {
    const text = { id, words, sent: false, tried: false, placed: false, ...fields };
    this.#written.set(id, words);
    this.#unconfirmed.set(id, text);
    return text;
  }

  // Those that are not confirmed, in the order in which they were written.
  get unconfirmed() {
    return [...this.#unconfirmed.values()];
  }

  // The text with this id, if it is not confirmed yet.
  find(id) {
    return this.#unconfirmed.get(id);
  }

  isMine(id) {
    return this.#written.has(id);
  }

  // Whether a line of a history was written here. Nothing but its words can identify a line without an id.
  has(id, words) {
    return id ? this.isMine(id) : [...this.#written.values()].includes(words);
  }

  // The server has the text. Returns it, unless it was confirmed already.
  confirm(id) {
    const text = this.remove(id);
    if (text) this.count(text.words);
    return text;
  }

  // The text is not sent any more. Returns it, if it was not confirmed yet.
  remove(id) {
    const text = this.#unconfirmed.get(id);
    this.#unconfirmed.delete(id);
    return text;
  }

  // A user has said this in the conversation.
  count(words) {
    tally(this.#known, words);
  }

  // A user has taken back what was said last, which has this id if it is known.
  takeBack(id) {
    const words = this.#written.get(id)?.trim();
    if (words !== undefined && this.#known.has(words)) this.#known.set(words, this.#known.get(words) - 1);
  }

  // There is a new socket: it has sent none of them.
  markUnsent() {
    for (const text of this.#unconfirmed.values()) text.sent = false;
  }

  // The agent has failed for good, also with the request that it was asked. It is not asked again, if it is in the
  // conversation; those that waited behind it are not in it, and are.
  fail() {
    for (const text of this.#unconfirmed.values()) text.failed = text.tried;
  }

  // The conversation is a new one, or was emptied: it has no texts.
  forgetConversation() {
    this.#known.clear();
    for (const text of this.#unconfirmed.values()) text.placed = false;
  }

  // The conversation has these lines, [{role, text, id}, …], and no others. Returns the texts that are
  // confirmed by that, or failed.
  takeHistory(lines) {
    const confirmed = [];
    const before = this.#known;
    const withoutId = new Map();
    const ids = new Set();
    this.#known = new Map();
    for (const { role, text, id } of lines) {
      if (role !== "user") continue;
      ids.add(id);
      if (!this.find(id)) this.count(text);
      if (!id) tally(withoutId, text);
    }
    for (const text of this.unconfirmed) {
      text.placed = ids.has(text.id);
      if (text.placed && text.failed) confirmed.push(this.confirm(text.id));
      if (text.placed || !text.tried || times(withoutId, text.words) <= times(before, text.words)) continue;
      confirmed.push(this.remove(text.id));
      tally(before, text.words);
    }
    return confirmed;
  }
}

function tally(counts, words) {
  counts.set(words.trim(), times(counts, words) + 1);
}

function times(counts, words) {
  return counts.get(words.trim()) ?? 0;
}

// What becomes of a text: a handler for each.
export function fates(tell) {
  const types = /** @type {const} */ (["sent", "unsent", "placed", "confirmed", "refused"]);
  return Object.fromEntries(types.map((type) => [type, (/** @type {string} */ id) => tell(type, id)]));
}
