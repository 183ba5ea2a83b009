// The pictures that go with the next text: chosen, pasted or dropped on the page, and shown above the box until then.

import { button, element } from "./elements.js";
import { icon } from "./icons.js";
import { pictureOf } from "./picture.js";

const $ = (id) => document.getElementById(id);

const LISTENS = "You were invited to listen only.";
const BESIDE = "Pictures need a WebSocket, and none gets through from here.";

const MOST = 4; // with one text: a server with several processes keeps no more of them
const MAX_BYTES = 4 * 1024 * 1024; // the server refuses larger ones

// Invariant: the row has one child for each picture, in their order, and is hidden while there are none.
export class Pictures {
  #row = $("pictures");
  #button = $("picture");
  #input = $("picture-file");
  #pictures = [];
  #why = ""; // none can be sent now
  #reading = Promise.resolve(); // those that were given so far: one is read after the other, so that MOST holds
  #tell;
  #focusText;
  #announce;

  // `tell(text)` shows a problem, or none; `focusText()` leads to the box.
  constructor({ tell, focusText, announce }) {
    this.#tell = tell;
    this.#focusText = focusText;
    this.#announce = announce;
    this.#button.addEventListener("click", () => this.#input.click());
    this.#input.addEventListener("change", () => {
      this.#add([...this.#input.files]);
      this.#input.value = ""; // the same file can be chosen again
    });
    document.addEventListener("paste", (event) => this.#pasted(event));
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => this.#dropped(event));
  }

  get isEmpty() {
    return !this.#pictures.length;
  }

  // What is known of the conversation: `role` and `beside` as in the client's state.
  show({ role, beside }) {
    this.#why = role === "listen" ? LISTENS : beside ? BESIDE : "";
    const why = this.#why;
    this.#button.disabled = Boolean(why);
    this.#button.title = why || "Add a picture";
  }

  // The pictures, for the text that is sent now: they are not here any more.
  take() {
    if (this.#why) {
      if (!this.isEmpty) this.#tell(`${this.#why} The picture stays here.`);
      return [];
    }
    const taken = this.#pictures;
    this.#pictures = [];
    this.#row.replaceChildren();
    this.#update();
    this.#tell("");
    return taken;
  }

  #pasted(event) {
    const files = picturesIn(event.clipboardData);
    // What is copied from a document or a table is a text, and a picture of it.
    if (!files.length || event.clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    this.#add(files);
  }

  #dropped(event) {
    if (!hasFiles(event)) return;
    event.preventDefault(); // the browser would show the file in place of the page
    const files = picturesIn(event.dataTransfer);
    if (files.length) this.#add(files);
    else this.#tell("Only pictures can be sent.");
  }

  // Settles when all that was given so far is in the row, or was told to be none.
  get ready() {
    return this.#reading;
  }

  #add(files) {
    this.#reading = this.#reading.then(() => this.#read(files));
  }

  async #read(files) {
    if (this.#why) return this.#tell(this.#why);
    this.#tell("");
    for (const file of files) {
      if (this.#pictures.length >= MOST) return this.#tell(`At most ${MOST} pictures go with a message.`);
      try {
        this.#show(await pictureOf(file, MAX_BYTES));
      } catch (error) {
        this.#tell(error.message);
      }
    }
  }

  #show(picture) {
    this.#pictures.push(picture);
    const item = element("li");
    const image = element("img");
    image.src = picture.preview;
    image.alt = "";
    const remove = button("", "round", () => this.#remove(picture, item));
    remove.append(icon("close"));
    item.append(image, remove);
    this.#row.append(item);
    this.#update();
    this.#announce("A picture was added.");
    this.#focusText();
  }

  #remove(picture, item) {
    this.#pictures = this.#pictures.filter((each) => each !== picture);
    item.remove();
    this.#update();
    this.#announce("The picture was removed.");
    (this.#row.querySelector("button") ?? this.#button).focus();
  }

  #update() {
    this.#row.hidden = this.isEmpty;
    for (const [index, button] of this.#row.querySelectorAll("button").entries()) {
      button.setAttribute("aria-label", `Remove picture ${index + 1}`);
    }
    $("text").placeholder = this.isEmpty ? "Message" : "Ask about it"; // a picture goes with a text only
  }
}

const hasFiles = ({ dataTransfer }) => Boolean(dataTransfer?.types.includes("Files"));

const picturesIn = (data) => [...(data?.files ?? [])].filter(({ type }) => type.startsWith("image/"));

// The pictures that went with a text, in its bubble.
export function pictureList(pictures) {
  const list = element("ul", "pictures");
  for (const [index, { preview }] of pictures.entries()) {
    const item = element("li");
    const image = element("img");
    image.src = preview;
    image.alt = pictures.length > 1 ? `Picture ${index + 1}` : "Picture";
    item.append(image);
    list.append(item);
  }
  return list;
}

// The text of this item was sent, and its pictures could not be.
export function losePictures(item) {
  item?.querySelector(".pictures")?.replaceWith(element("p", "lost", "Sent without its pictures"));
}
