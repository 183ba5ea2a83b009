// The display of the call, and its controls.

import * as view from "./view.js";

const LOUD = 0.35; // of a level of 1: the user is speaking
const HANG = 500; // ms for which the user still counts as speaking afterwards: the pauses between words
const TICK = 100; // ms between two checks of who is speaking

const { elements } = view;

export class Call {
  #live;
  #changed;
  #talking = false;
  #since = 0; // when it began
  #loud = -Infinity; // when the user was heard last
  #timer = 0;
  #frame = 0;

  // `live` is the conversation (see clients/js). `changed()`: the display may have to change.
  constructor(live, changed) {
    this.#live = live;
    this.#changed = changed;
    // A failure is told by the message that the call is off.
    elements.audio.addEventListener("click", () => (this.active ? live.hangUp() : live.speak().catch(() => {})));
    elements.mute.addEventListener("click", () => this.#toggleMute());
    this.#holdToTalk(elements.talk);
    live.on("call", ({ state, why }) => this.#become(state, why));
  }

  get active() {
    return this.#live.state.call !== "off";
  }

  // The server has told whether the user has to hold a button to talk.
  showPushToTalk() {
    this.#showTalking(false);
    view.showPushToTalk(this.#live.state.pushToTalk);
  }

  // Shows who is speaking. `state` is the name of the connection's state; `expecting`: an answer is to come.
  show(state, expecting) {
    if (!this.active) return;
    const isReady = this.#live.state.call === "on";
    view.showSpeaker(...this.#speaker(state, expecting), isReady ? (performance.now() - this.#since) / 1000 : 0);
  }

  #speaker(state, expecting) {
    const { call, pushToTalk } = this.#live.state;
    const { voice } = this.#live;
    if (call === "asking") return ["none", "Allow the microphone…"];
    if (state === "modelling") return ["none", "Reconnecting…"];
    if (state !== "connected") return ["none", "Connecting…"];
    if (voice.playing) return ["agent", "Agent is speaking"];
    if (voice.muted) return ["none", "You are muted"];
    if (pushToTalk && !this.#talking && !expecting) return ["none", "Hold the button to talk"];
    if (performance.now() - this.#loud < HANG) return ["user", "You are speaking"];
    if (expecting) return ["none", "Thinking…"];
    return ["none", "Listening"];
  }

  #become(state, why) {
    clearInterval(this.#timer);
    cancelAnimationFrame(this.#frame);
    view.showCall(state);
    this.#since = performance.now();
    switch (state) {
      case "asking":
        this.#loud = -Infinity;
        view.notice("microphone");
        view.showMuted(false);
        break;
      case "on":
        this.#drawLevels();
        break;
      case "off":
        this.#showTalking(false);
        if (why) view.notice("microphone", why);
        return;
    }
    this.#timer = setInterval(() => this.#tick(), TICK);
  }

  #tick() {
    const isSent = this.#talking || !this.#live.state.pushToTalk;
    if (isSent && this.#live.voice.levels().input > LOUD) this.#loud = performance.now();
    this.#changed();
  }

  #talk(talking) {
    if (talking === this.#talking || (talking && this.#live.state.call !== "on")) return;
    this.#live.talk(talking);
    this.#showTalking(talking);
    this.#changed();
  }

  #showTalking(talking) {
    this.#talking = talking;
    view.showTalking(talking);
  }

  // A press holds, with a pointer or a key. Where there is no holding (a screen reader's or a switch's click), one click
  // begins and the next one ends.
  #holdToTalk(button) {
    const isKey = ({ key }) => key === " " || key === "Enter";
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      this.#talk(true);
    });
    for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, () => this.#talk(false));
    button.addEventListener("keydown", (event) => {
      if (!isKey(event)) return;
      event.preventDefault();
      if (!event.repeat) this.#talk(true);
    });
    button.addEventListener("keyup", (event) => {
      if (!isKey(event)) return;
      event.preventDefault();
      this.#talk(false);
    });
    button.addEventListener("click", ({ detail }) => detail || this.#talk(!this.#talking));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  #toggleMute() {
    const muted = !this.#live.voice.muted;
    this.#live.mute(muted);
    view.showMuted(muted);
    this.#changed();
  }

  #drawLevels() {
    view.showLevels(this.#live.voice.levels());
    this.#frame = requestAnimationFrame(() => this.#drawLevels());
  }
}
