// Captions: whether what is said aloud in a call is shown while it is said. Without them, the utterances and answers of
// the call are hidden until it ends, and then are where they belong. What is written, and what tools ask, is shown always.

const messages = document.getElementById("messages");
const button = document.getElementById("captions");
const hint = document.getElementById("uncaptioned");

export class Captions {
  #live;
  #remember;
  #areOn;
  #observer = new MutationObserver((changes) => changes.forEach(({ addedNodes }) => this.#mark(addedNodes)));

  // `areOn`: as it was chosen before; `remember(areOn)` keeps another choice.
  constructor(live, areOn, remember) {
    this.#live = live;
    this.#areOn = areOn;
    this.#remember = remember;
    button.addEventListener("click", () => this.#switch());
    live.on("call", () => this.#show());
    this.#show();
  }

  #switch() {
    this.#areOn = !this.#areOn;
    this.#remember(this.#areOn);
    this.#show();
  }

  #show() {
    const isCalling = this.#live.state.call !== "off";
    const wasHidden = messages.classList.contains("uncaptioned");
    button.setAttribute("aria-pressed", String(this.#areOn));
    messages.classList.toggle("uncaptioned", isCalling && !this.#areOn);
    hint.hidden = !messages.classList.contains("uncaptioned");
    if (isCalling) this.#observer.observe(messages, { childList: true });
    else this.#end();
    if (wasHidden && hint.hidden) messages.scrollTop = messages.scrollHeight;
  }

  #end() {
    this.#observer.disconnect();
    for (const item of messages.querySelectorAll(".aloud")) item.classList.remove("aloud");
  }

  // What is open, or comes from the microphone, is said now. The rest is the conversation until now, shown again.
  #mark(items) {
    for (const item of items) {
      if (item.matches?.(".agent.open, .agent.expected, .user.heard")) item.classList.add("aloud");
    }
  }
}
