// Invitations to a room: makes a link that lets its bearer into this room only.

import { announce } from "./announcer.js";
import { ask } from "./api.js";
import { copy } from "./copy.js";
import { limit } from "./demo-me.js";
import { isSignedIn, withToken } from "./token.js";

const $ = (id) => document.getElementById(id);

const NO_SECRET = "This server signs no invitations: that needs RELAY_SECRET.";

const RIGHTS = { write: "may write here", listen: "may only listen here", manage: "may write here, clear and delete the room" };

// Invariant: the form is for `#room`; the link, if one is shown, is for it, too.
export class Invitations {
  #room = "";
  #why = ""; // why nobody can be invited, if the server has said so

  constructor() {
    $("invite").addEventListener("click", () => this.#open($("invite-form").hidden));
    $("invite-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#make();
    });
    $("invite-form").addEventListener("keydown", ({ key }) => key === "Escape" && this.#close());
    $("invite-copy").addEventListener("click", () => this.#copy());
  }

  // `mayInvite`: the room is the user's own.
  show(room, mayInvite) {
    if (room !== this.#room || !mayInvite) this.#open(false);
    this.#room = room;
    if (!mayInvite) return limit($("invite"), true, "role");
    const why = isSignedIn() ? this.#why : NO_SECRET; // with a secret, the page would need a token to be here
    $("invite-why").textContent = $("invite").title = why;
    limit($("invite"), why, "invite-why");
  }

  #open(isOpen) {
    $("invite-form").hidden = !isOpen;
    $("invite").setAttribute("aria-expanded", String(isOpen));
    $("invite-result").hidden = true;
    $("invite-problem").textContent = "";
    if (isOpen) $("invite-role").focus();
  }

  #close() {
    this.#open(false);
    $("invite").focus();
  }

  async #make() {
    const room = this.#room;
    const wanted = { role: $("invite-role").value, ttl: Number($("invite-ttl").value), name: $("invite-name").value.trim() };
    $("invite-problem").textContent = "";
    let made;
    try {
      made = await ask("POST", `sessions/${room}/invite`, wanted);
    } catch ({ message, status }) {
      if (status === 409) {
        this.#why = NO_SECRET;
        if (room === this.#room) this.show(room, true);
        this.#open(false);
      }
      $("problem").textContent = status === 409 ? NO_SECRET : "";
      $("invite-problem").textContent = message;
      return;
    }
    if (room !== this.#room) return;
    const until = new Date(made.expires_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    $("invite-says").textContent = `Whoever opens this link ${RIGHTS[made.role]}, until ${until}:`;
    $("invite-link").value = withToken("demo", made.token, room);
    $("invite-result").hidden = false;
    $("invite-link").focus();
    $("invite-link").select();
    announce($("invite-says").textContent);
  }

  async #copy() {
    $("invite-link").select();
    if (await copy($("invite-link").value)) {
      announce("The link was copied.");
      $("invite-copy").textContent = "Copied";
    } else {
      $("invite-link").select();
      announce("The link is selected: copy it with the keyboard.");
    }
    setTimeout(() => ($("invite-copy").textContent = "Copy"), 2000);
  }
}
