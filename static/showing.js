// Camera and screen: a button each, and what the agent is shown, small.

import * as view from "./view.js";

const video = document.getElementById("shown");
const buttons = {
  camera: document.getElementById("camera"),
  screen: document.getElementById("screen"),
};

export class Showing {
  #live;

  constructor(live) {
    this.#live = live;
    // Phones have no getDisplayMedia, and pages without https have none at all.
    buttons.camera.hidden = !navigator.mediaDevices?.getUserMedia;
    buttons.screen.hidden = !navigator.mediaDevices?.getDisplayMedia;
    for (const [what, button] of Object.entries(buttons)) button.addEventListener("click", () => this.#toggle(what));
    live.on("showing", ({ why }) => this.#changed(why));
    live.on("call", () => this.#show());
    this.#show();
  }

  #toggle(what) {
    view.notice("showing");
    if (this.#live.state.showing === what) this.#live.hide();
    else this.#live.show(what).catch(() => {}); // a message tells of a failure
  }

  #changed(why) {
    this.#show();
    if (why) view.notice("showing", why);
  }

  #show() {
    const { call, showing } = this.#live.state;
    for (const [what, button] of Object.entries(buttons)) {
      button.disabled = call !== "on";
      button.setAttribute("aria-pressed", String(showing === what));
    }
    video.hidden = !showing;
    if (video.srcObject === this.#live.shown) return;
    video.srcObject = this.#live.shown;
    if (showing) video.play().catch(() => {}); // another one has come
  }
}
