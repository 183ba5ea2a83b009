// The title of the page, with a mark when an answer came while nobody looked at it; also the mark of an installed app.

export class PageTitle {
  #site = document.title;
  #name = "";
  #unseen = 0; // answers

  constructor() {
    addEventListener("focus", () => this.#seen());
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  // What the page shows: the name of a conversation or a room; empty: none.
  set name(name) {
    this.#name = name;
    this.#show();
  }

  // An answer is complete.
  answered() {
    if (isLookedAt()) return;
    this.#unseen++;
    this.#show();
  }

  #seen() {
    if (!this.#unseen || !isLookedAt()) return;
    this.#unseen = 0;
    this.#show();
  }

  #show() {
    const title = this.#name ? `${this.#name} · ${this.#site}` : this.#site;
    document.title = this.#unseen ? `(${this.#unseen}) ${title}` : title;
    // Only installed apps have one, and not every browser lets them.
    const marked = this.#unseen ? navigator.setAppBadge?.(this.#unseen) : navigator.clearAppBadge?.();
    marked?.catch(() => {});
  }
}

const isLookedAt = () => !document.hidden && document.hasFocus();
