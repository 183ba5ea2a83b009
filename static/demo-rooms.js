// The list of all rooms, with how many messages and people are in each, and the box for the name of another one.

import { ask } from "./api.js";
import { element } from "./elements.js";

const REFRESH = 10000; // ms between two requests
const DELAY = 200; // ms in which several reasons to refresh become one request

const $ = (id) => document.getElementById(id);

export class RoomList {
  #list = $("rooms");
  #empty = $("no-rooms"); // is shown when there are no rooms
  #isWanted;
  #timer = 0;
  #shown = ""; // the JSON of what is shown
  #current = ""; // the id of the room that the page shows

  // `isWanted()`: nothing is asked while it is false.
  constructor(isWanted) {
    this.#isWanted = isWanted;
    $("rooms-button").addEventListener("click", () => this.#open(!$("rooms-list").classList.contains("open")));
    $("rooms-list").addEventListener("keydown", ({ key, isComposing }) => {
      if (key !== "Escape" || isComposing || !$("rooms-list").classList.contains("open")) return;
      this.#open(false);
      $("rooms-button").focus();
    });
    $("join").addEventListener("submit", (event) => {
      event.preventDefault();
      location.hash = roomIn($("join-id").value.trim());
      $("join-id").value = "";
    });
  }

  // Something has changed: reads the list soon.
  refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), DELAY);
  }

  // Marks the room that the page shows.
  mark(room) {
    if (room !== this.#current) this.#open(false);
    this.#current = room;
    for (const link of this.#links) {
      if (link.hash.slice(1) === room) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  // On a phone, they are above the room only when they are asked for.
  #open(open) {
    $("rooms-list").classList.toggle("open", open);
    $("rooms-button").setAttribute("aria-expanded", String(open));
  }

  get #links() {
    return [...this.#list.querySelectorAll("a")];
  }

  async #ask() {
    // Set before the request: a refresh() that comes during it must not be forgotten.
    this.#timer = setTimeout(() => this.#ask(), REFRESH);
    if (document.hidden || !this.#isWanted()) return;
    // Without an answer the list stays as it is until the next time. The user is not told.
    const found = await ask("GET", "sessions?limit=50").catch(() => null);
    if (!found || JSON.stringify(found.sessions) === this.#shown) return;
    this.#shown = JSON.stringify(found.sessions);
    const focused = document.activeElement.hash;
    this.#list.replaceChildren(...found.sessions.map(entry));
    this.#empty.hidden = found.sessions.length > 0;
    this.mark(this.#current);
    this.#links.find(({ hash }) => hash && hash === focused)?.focus();
  }
}

// The id of a room, from what somebody types who was told it: "Quiet Otter 42".
function roomIn(text) {
  const told = text.toLowerCase().replace(/[\s-]+/g, "-");
  return /^[a-z]+-[a-z]+-\d+$/.test(told) ? told : text.replace(/\s+/g, "");
}

function entry({ session_id, message_count, connected_clients }) {
  const item = document.createElement("li");
  const link = item.appendChild(document.createElement("a"));
  link.href = `#${session_id}`;
  const messages = message_count === 1 ? "1 message" : `${message_count} messages`;
  link.append(element("div", "name", session_id), element("div", "facts", `${messages} · ${connected_clients} here`));
  return item;
}
