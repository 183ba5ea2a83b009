// How long the agent and the server take to answer, measured here.

const ms = (begin, end = performance.now()) => `${Math.round(end - begin)} ms`;

export class Timings {
  roundTrip = ""; // of the last ping
  #pinged = 0;
  #asked = 0; // when the text was sent, or the user had finished speaking; 0: not yet in this turn
  #first = ""; // after how long the first piece of the answer came
  #firstSound = "";
  #turns = 0;

  // A frame of text.
  saw(direction, { type }) {
    if (direction === "up" && type === "ping") this.#pinged = performance.now();
    if (direction === "down" && type === "pong" && this.#pinged) {
      this.roundTrip = ms(this.#pinged);
      this.#pinged = 0;
    }
  }

  // What the client tells.
  see(message) {
    switch (message.type) {
      case "sent":
        this.#asked ||= performance.now();
        break;
      case "transcript":
        if (!this.#first) this.#asked = performance.now(); // what is heard last counts
        break;
      case "text":
        if (this.#asked) this.#first ||= ms(this.#asked);
        break;
      case "sound":
        if (this.#asked) this.#firstSound ||= ms(this.#asked);
        break;
    }
  }

  // The turn is over; returns what is to be told of it.
  ended({ interrupted, usage }) {
    const told = [
      this.#first && `first token ${this.#first}`,
      this.#firstSound && `first sound ${this.#firstSound}`,
      this.#asked && `in all ${ms(this.#asked)}`,
      usage?.total_tokens && `${usage.total_tokens} tokens`,
      interrupted && "interrupted",
    ];
    this.#asked = 0;
    this.#first = this.#firstSound = "";
    return `${++this.#turns}: ${told.filter(Boolean).join(", ") || "not asked for here"}`;
  }
}
