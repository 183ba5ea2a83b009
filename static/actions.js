// What can be done with messages: the small buttons under them.
//
// Every answer can be copied. What the user has said last can be edited, and its answer be given again: both take it back
// (see rewind() in the client) and say it anew.

import { copyButton } from "./copy.js";
import { element } from "./elements.js";
import { iconButton } from "./icons.js";

const LOST = "There is no connection now. Please try again.";

// The place for the buttons under an answer. `source()` returns the answer's Markdown, which is copied.
export function answerActions(source) {
  const place = element("span", "actions");
  place.append(copyButton("Copy this answer", source));
  return place;
}

// Invariants: the two buttons are under the last text of the user and its answer, and only while these can be taken back.
// While a text is edited, its line in the client's state is #edited, and a line above the box says so.
export class LastActions {
  #live;
  #root;
  #box;
  #bar = document.getElementById("editing");
  #again = iconButton("again", "Answer this again", "action", () => this.#sayAgain());
  #edit = iconButton("edit", "Edit this message", "action", () => this.#begin());
  #edited = null;
  #draft = ""; // what was in the box before
  #write;
  #tell;

  // `root`: the messages. `box`: where texts are written; `write(text)` puts one into it. `tell(text)` shows a problem, or
  // none.
  constructor(live, { root, box, write, tell }) {
    this.#live = live;
    this.#root = root;
    this.#box = box;
    this.#write = write;
    this.#tell = tell;
    document.getElementById("editing-cancel").addEventListener("click", () => this.#cancel());
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || !this.#edited) return;
      event.preventDefault();
      event.stopPropagation(); // it stops answers, too
      this.#cancel();
    });
  }

  // Puts the buttons where they belong now.
  update() {
    const line = this.#last();
    const items = line ? [...this.#root.querySelectorAll(":scope > .message:not([data-aside])")] : [];
    const question = items.findLast((item) => item.matches(".user"));
    const isOwn = question?.matches(":not(.other)");
    put(this.#edit, isOwn ? question.querySelector(".meta") : null);
    put(this.#again, isOwn && items.at(-1).matches(".agent") ? items.at(-1).querySelector(".actions") : null);
    if (this.#edited && lastOf(this.#live.state)?.key !== this.#edited.key) this.#end(); // another has come: this is new now
  }

  // Says a text: a new one, or that which was edited. `pictures`: see pictures.js. Returns whether it could be sent.
  say(text, pictures) {
    const edited = this.#edited;
    if (edited && !this.#takeBack(edited)) return false;
    this.#end();
    this.#live.say(text, { pictures: [...(edited?.pictures ?? []), ...pictures.take()] });
    return true;
  }

  // What belongs into the box after a text was sent: what was in it before that was edited.
  takeDraft() {
    const draft = this.#draft;
    this.#draft = "";
    return draft;
  }

  // The line of the user's last text, if it can be taken back.
  #last() {
    const { state } = this.#live;
    const { connection, role, beside, answering, expecting } = state;
    const isFree = connection.name === "connected" && !beside && !answering && !expecting && role !== "listen";
    const line = isFree && lastOf(state);
    return line && !line.beside && !line.open && !line.status ? line : null;
  }

  #takeBack({ id }) {
    const isSent = this.#live.rewind(id);
    this.#tell(isSent ? "" : LOST);
    return isSent;
  }

  #sayAgain() {
    const line = this.#last();
    if (line && this.#takeBack(line)) this.#live.say(line.text, { pictures: line.pictures });
    this.#box.focus();
  }

  #begin() {
    const line = this.#last();
    if (!line) return;
    if (!this.#edited) this.#draft = this.#box.value;
    this.#edited = line;
    this.#bar.hidden = false;
    this.#write(line.text);
    this.#box.focus();
  }

  #cancel() {
    this.#end();
    this.#write(this.takeDraft());
    this.#box.focus();
  }

  #end() {
    this.#edited = null;
    this.#bar.hidden = true;
  }
}

const lastOf = ({ messages }) => messages.findLast(({ role }) => role === "user");

// A button that is where it belongs already stays, with the focus.
function put(button, place) {
  if (button.parentElement === place) return;
  if (place) place.append(button);
  else button.remove();
}
