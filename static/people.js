// The names of the others in a conversation, by their connections.

export class People {
  #names = new Map(); // connection id → the name of those who have one
  #here = new Set(); // the connections with a name that are here now, as far as is known

  // This page has entered the conversation, in which these others are: {connection id: name}.
  enter(names = {}) {
    this.#here.clear();
    this.#note(names);
  }

  // A frame says something about others.
  heard({ connection_id: id, name, names = {}, joined = [], left = [] }) {
    if (name) this.#names.set(id, name);
    this.#note(Object.fromEntries(Object.entries(names).filter(([each]) => joined.includes(each))));
    for (const each of left) this.#here.delete(each);
  }

  // A name for anybody.
  whoIs(id) {
    return this.nameOf(id) || `Guest ${id?.slice(0, 4)}`;
  }

  nameOf(id) {
    return this.#names.get(id) ?? "";
  }

  // The names of those who are here, each once.
  get here() {
    return [...new Set([...this.#here].map((id) => this.nameOf(id)))];
  }

  #note(names) {
    for (const [id, name] of Object.entries(names)) {
      this.#names.set(id, name);
      this.#here.add(id);
    }
  }
}

// "Ann, Bob and Cid"
export const list = (names) => names.join(", ").replace(/, ([^,]*)$/, " and $1");

// "Ann and Bob are typing…"
export const areTyping = (names) => names.length ? `${list(names)} ${names.length > 1 ? "are" : "is"} typing…` : "";
