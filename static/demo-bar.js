// The bar above a room's messages: its name, links to it, and what can be done with it.

import { ask, here } from "./api.js";
import { Invitations } from "./demo-invite.js";
import { PageTitle } from "./title.js";

const $ = (id) => document.getElementById(id);

export class RoomBar {
  #room = ""; // the id of the room that the page shows; empty: none
  #me;
  #invitations = new Invitations();
  title = new PageTitle();

  // `me`: the user (see demo-me.js). `failed(why)`: the server has refused to clear or to delete the room.
  constructor(me, failed) {
    this.#me = me;
    const change = (what, method, path) => {
      if (!confirm(`${what} this room, and all that was said in it, for everybody?`)) return;
      ask(method, path).catch(({ message }) => failed(message));
    };
    $("clear").addEventListener("click", () => change("Clear", "POST", `sessions/${this.#room}/clear`));
    $("delete").addEventListener("click", () => change("Delete", "DELETE", `sessions/${this.#room}`));
  }

  show(room) {
    this.#room = room;
    this.title.name = room;
    $("room-name").textContent = room ? `Room ${room}` : "No room yet";
    $("room-actions").hidden = !room;
    $("window").href = room && `#${room}`;
    // The same conversation in the main page, by the live dialect. Where nobody signs in, all rooms belong to the guest.
    const name = encodeURIComponent(this.#me.chosen);
    $("speak").href = room && here(`./?user=guest&session=${room}${name && `&name=${name}`}`);
    for (const id of ["clear", "delete"]) this.#me.limit(id, this.#me.manages);
    this.#invitations.show(room, !this.#me.role);
  }
}
