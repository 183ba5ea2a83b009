// The voice and the language of the agent, where the operator lets users choose them: for all in this conversation, and
// remembered for the user's next ones.

import { remember, remembered } from "./settings.js";

const $ = (id) => document.getElementById(id);

const PARTS = { voice: "voices", language: "languages" };

export class VoiceSettings {
  #live;

  constructor(live) {
    this.#live = live;
    for (const part of Object.keys(PARTS)) $(`${part}-choice`).addEventListener("change", () => this.#choose(part));
    // After an error it is what it was.
    for (const type of ["hello", "configured", "error"]) live.on(type, () => this.#show());
    live.on("history", ({ lines }) => lines.length || this.#choosesAsBefore());
  }

  #show() {
    const { state } = this.#live;
    const isFree = state.role !== "listen";
    for (const [part, all] of Object.entries(PARTS)) {
      const select = $(`${part}-choice`);
      const choices = state[all];
      select.hidden = select.labels[0].hidden = !choices.length;
      if (select.options.length !== choices.length + 1) {
        const named = part === "language" ? languageName : String;
        select.replaceChildren(new Option("Automatic", ""), ...choices.map((each) => new Option(named(each), each)));
      }
      select.value = state[part];
    }
    $("voice-settings").hidden = !isFree || !(state.voices.length || state.languages.length);
  }

  #choose(part) {
    const { value } = $(`${part}-choice`);
    remember(part, value || null);
    if (!this.#live.configure({ [part]: value })) this.#show();
  }

  // A new conversation begins with what was chosen last.
  #choosesAsBefore() {
    const { state } = this.#live;
    if (state.role) return; // it is another user's
    const wanted = Object.entries(PARTS).map(([part, all]) => [part, remembered(part, ""), state[all]]);
    const found = wanted.filter(([part, value, choices]) => choices.includes(value) && value !== state[part]);
    if (found.length) this.#live.configure(Object.fromEntries(found));
  }
}

// In the language of the browser: "German (Germany)" for de-DE.
function languageName(code) {
  try {
    return new Intl.DisplayNames([], { type: "language" }).of(code);
  } catch {
    return code; // none that is known
  }
}
