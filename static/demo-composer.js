// The box in which the user writes to a room.

import { Draft } from "./draft.js";
import { bytesOf, fit, MAX_TEXT, sendOnEnter } from "./textbox.js";

const $ = (id) => document.getElementById(id);

const TOO_LONG = "This message is too long: at most 32 KiB are allowed.";

export class Composer {
  #on;
  #draft = new Draft($("text"), () => this.fit());

  // `on` has typed(text), when the user has changed it; problem(text), which may be empty; send(words); and changed().
  constructor(on) {
    this.#on = on;
    $("text").addEventListener("input", () => {
      on.typed($("text").value);
      this.fit();
    });
    sendOnEnter($("text"), $("send"));
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  // What is written is for this room from now on. Brings back what was not sent.
  writeIn(room) {
    this.#draft.of(room);
    this.fit();
  }

  begin() {
    this.writeIn(location.hash.slice(1));
    if (matchMedia("(pointer: fine)").matches) this.focus(); // a touch keyboard would cover half of the screen
  }

  get isEmpty() {
    return !$("text").value.trim();
  }

  // Puts words back that could not be sent, before what the user has written since.
  giveBack(words) {
    $("text").value = [...words, $("text").value].filter(Boolean).join("\n");
    this.fit();
  }

  fit() {
    fit($("text"));
    this.#on.changed();
  }

  focus() {
    $("text").focus();
  }

  #submit() {
    const words = $("text").value.trim();
    const isTooLong = bytesOf(words) > MAX_TEXT;
    this.#on.problem(isTooLong ? TOO_LONG : "");
    if (isTooLong) return;
    this.#on.send(words);
    $("text").value = "";
    this.fit();
    this.focus();
  }
}
