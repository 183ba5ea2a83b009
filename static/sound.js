// Which microphone, loudspeaker and camera are used, and when the microphone is on: chosen in the settings, and remembered.

import { canChooseLoudspeaker, listDevices, watchDevices } from "../clients/js/src/index.js";
import { remember, remembered } from "./settings.js";

const KINDS = ["microphone", "loudspeaker", "camera"];
const KEY = "sound"; // remembered: {microphone: {id, label}, loudspeaker, camera, mode}

const HINT =
  "Automatic: always on, but off while the agent speaks if the microphone hears it. Push to talk: on while you hold a " +
  "button or the space bar; if nobody else is here, a pause does not end what you say.";

const selects = Object.fromEntries(KINDS.map((kind) => [kind, document.getElementById(`${kind}-choice`)]));
const modes = document.getElementById("mode-choice");

export class SoundSettings {
  #live;
  #chosen = remembered(KEY, {});

  constructor(live) {
    this.#live = live;
    const { loudspeaker } = selects;
    loudspeaker.hidden = loudspeaker.labels[0].hidden = !canChooseLoudspeaker;
    for (const kind of KINDS) selects[kind].addEventListener("change", () => this.#useDevice(kind));
    modes.addEventListener("change", () => this.useMode(modes.value));
    watchDevices(() => this.#list());
    // A call, or the camera in it, was allowed: then the names are told.
    for (const type of ["call", "showing"]) live.on(type, () => this.#list());
    for (const type of ["hello", "configured"]) live.on(type, () => this.#showMode());
    this.#choose();
    this.#list();
  }

  useMode(mode) {
    this.#chosen = { ...this.#chosen, mode };
    this.#choose();
  }

  #useDevice(kind) {
    const { value: id, selectedOptions } = selects[kind];
    const label = selectedOptions[0].textContent.replace(/ \(not connected\)$/, "");
    this.#chosen = { ...this.#chosen, [kind]: { id, label } };
    this.#choose();
  }

  #choose() {
    const ids = KINDS.map((kind) => [kind, this.#chosen[kind]?.id ?? ""]);
    const { mode = "auto" } = this.#chosen;
    if (Object.keys(this.#chosen).length) remember(KEY, this.#chosen);
    this.#live.choose({ ...Object.fromEntries(ids), mode });
    this.#showMode();
  }

  #showMode() {
    const isFree = this.#live.canChooseMode;
    modes.value = isFree ? this.#live.state.mode : "push_to_talk";
    modes.disabled = !isFree;
    document.getElementById("mode-hint").textContent = isFree ? HINT : "This conversation needs push to talk.";
  }

  async #list() {
    const devices = await listDevices();
    this.#findAgain(devices);
    for (const kind of KINDS) {
      const { id = "", label = "" } = this.#chosen[kind] ?? {};
      const options = devices[kind].map((each) => new Option(each.label, each.id));
      if (id && !devices[kind].some((each) => each.id === id)) options.push(new Option(`${label} (not connected)`, id));
      selects[kind].replaceChildren(new Option("Default", ""), ...options);
      selects[kind].value = id;
    }
    document.getElementById("no-devices").hidden = KINDS.some((kind) => devices[kind].length);
  }

  // Some browsers give devices other ids each time that a page is loaded: then they are known by their names.
  #findAgain(devices) {
    for (const kind of KINDS) {
      const { id, label } = this.#chosen[kind] ?? {};
      if (!id || devices[kind].some((each) => each.id === id)) continue;
      const same = devices[kind].find((each) => each.label === label);
      if (!same) continue;
      this.#chosen = { ...this.#chosen, [kind]: same };
      this.#choose();
    }
  }
}
