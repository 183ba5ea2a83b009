// Keeps the newest message in sight, as long as the reader is at the end; otherwise a button leads there.

const NEAR = 48; // pixels from the end that still count as being at the end

export class Scrolling {
  #root;
  #latest;
  isAtEnd = true; // and the reader wants to stay there

  // `latest` is the button.
  constructor(root, latest) {
    this.#root = root;
    this.#latest = latest;
    root.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    latest.addEventListener("click", () => this.toEnd());
  }

  // There is something new at the end.
  follow() {
    if (this.isAtEnd) this.toEnd();
    else this.#latest.hidden = false;
  }

  toEnd() {
    this.#root.scrollTop = this.#root.scrollHeight;
    this.isAtEnd = true;
    this.#latest.hidden = true;
  }

  #scrolled() {
    this.isAtEnd = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < NEAR;
    if (this.isAtEnd) this.#latest.hidden = true;
  }
}
