// The texts that were written on this page, from writing to the server's confirmation.
//
// Each text has a random id. It is sent again on every new socket until the server has confirmed it; the server takes
// each id once. A server that was restarted has lost the ids. Then a text has arrived if its words are in the
// conversation one time more than before.

export class Texts {
  #written = new Map(); // id → words, of all that was written here
  #unconfirmed = new Map(); // id → the text, {id, words, sent, tried, …}; its ids are among those of #written
  #known = new Map(); // words → how often users have said them in the conversation, as far as this page knows

  // Returns the text, {id, words, sent, tried, …fields}. The sender sets `sent` (by the present socket) and `tried` (by
  // any socket).
  add(id, words, fields = {}) {
    const text = { id, words, sent: false, tried: false, ...fields };
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

  // There is a new socket: it has sent none of them.
  markUnsent() {
    for (const text of this.#unconfirmed.values()) text.sent = false;
  }

  // The conversation is a new one, or was emptied: it has no texts.
  forgetConversation() {
    this.#known.clear();
  }

  // The conversation has these lines, [{role, text, id}, …], and no others. Returns the texts that are
  // confirmed by that.
  takeHistory(lines) {
    const waited = this.unconfirmed;
    const before = this.#known;
    const withoutId = new Map();
    this.#known = new Map();
    for (const { role, text, id } of lines) {
      if (role !== "user") continue;
      this.count(text);
      if (id) this.remove(id);
      else tally(withoutId, text);
    }
    for (const { id, words, tried } of this.unconfirmed) {
      if (!tried || times(withoutId, words) <= times(before, words)) continue;
      this.remove(id);
      tally(before, words);
    }
    return waited.filter(({ id }) => !this.#unconfirmed.has(id));
  }
}

function tally(counts, words) {
  counts.set(words.trim(), times(counts, words) + 1);
}

function times(counts, words) {
  return counts.get(words.trim()) ?? 0;
}
