// Who the user is in the rooms: its name, and what it may do.

import { here } from "./api.js";
import { isSignedIn } from "./token.js";

const $ = (id) => document.getElementById(id);

const KEY = "relay.name";

const LIMITS = {
  manage: "You were invited to this room. Only whose room it is can invite others, or make other rooms.",
  write: "You were invited to this room. Only whose room it is can clear it, delete it, invite others or make other rooms.",
  listen: "You were invited to listen only: you see all that is said here, but you cannot write, or change the room.",
};

export class Me {
  // As the server has told; before that, empty.
  name = "";
  role = "";

  // `renamed()`: the user has chosen another name.
  constructor(renamed) {
    $("name").value = new URLSearchParams(location.search).get("name") ?? read() ?? "";
    $("name").addEventListener("change", () => {
      $("name").value = this.chosen;
      keep(this.chosen);
      renamed();
    });
  }

  // The name that the user wants to have. The server uses it where the token has none.
  get chosen() {
    return $("name").value.trim();
  }

  // The address of the WebSocket.
  get address() {
    const url = new URL(here("ws").href.replace(/^http/, "ws"));
    if (this.chosen) url.searchParams.set("name", this.chosen);
    return url;
  }

  get listens() {
    return this.role === "listen";
  }

  // The page is in a room: the server has told who the user is there.
  entered({ name = "", role = "" }) {
    this.name = name;
    this.role = role;
    $("role").textContent = LIMITS[role] ?? "";
    $("role").hidden = !role;
    const box = $("name");
    const isGiven = isSignedIn() && Boolean(name) && (box.disabled || name !== this.chosen);
    if (isGiven) box.value = name;
    limit(box, isGiven, "name-why");
  }

  // `isReady`: there is a connection. `canSend`: what is in the box can be sent.
  show(isReady, canSend) {
    for (const id of ["new", "join-button"]) this.limit(id, !this.role, !isReady);
    this.limit("join-id", !this.role);
    this.limit("text", !this.listens);
    this.limit("send", !this.listens, !canSend);
  }

  // Whether the room can be cleared and deleted by the user.
  get manages() {
    return ["", "manage"].includes(this.role);
  }

  // Disables a control if the user may not use it. `isDisabled`: it can't be used now in any case.
  limit(id, mayUse, isDisabled = false) {
    limit($(id), !mayUse, "role");
    $(id).disabled ||= isDisabled;
  }
}

// Disables a control, or not. `why`: the id of the text that says why.
export function limit(control, isLimited, why) {
  control.disabled = Boolean(isLimited);
  if (isLimited) control.setAttribute("aria-describedby", why);
  else control.removeAttribute("aria-describedby");
}

function read() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function keep(name) {
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // it lasts as long as the page
  }
}
