// The display of the call, and its controls.

import * as view from "./view.js";

const LOUD = 0.35; // of a level of 1: the user is speaking
const HANG = 500; // ms for which the user still counts as speaking afterwards: the pauses between words
const TICK = 100; // ms between two checks of who is speaking
const FIELDS = "input, textarea, select, button, a, summary, dialog, [contenteditable]"; // which use the space bar

const { elements } = view;

export class Call {
  #live;
  #on;
  #state = "off"; // as it was told last
  #talking = false;
  #since = 0; // when it began
  #loud = -Infinity; // when the user was heard last
  #timer = 0;
  #frame = 0;

  // `live` is the conversation (see clients/js). `on` has these handlers:
  //
  //   changed()       the display may have to change
  //   stop()          the user stops the answer that is being played, to talk
  //   useMode(mode)   the user has chosen when the microphone is sent
  constructor(live, on) {
    this.#live = live;
    this.#on = on;
    const begin = () => live.speak().catch(() => {}); // a failure is told by the message that the call is off
    elements.audio.addEventListener("click", () => (this.active ? live.hangUp() : begin()));
    elements.takeBack.addEventListener("click", begin);
    elements.mute.addEventListener("click", () => this.#toggleMute());
    this.#holdToTalk(elements.talk);
    this.#holdSpaceToTalk();
    live.on("call", ({ state, why }) => this.#become(state, why));
    live.on("echo", ({ heard }) => this.#tellOfEcho(heard));
    for (const type of ["hello", "choices"]) live.on(type, () => this.#showPushToTalk());
    live.on("configured", () => this.#live.state.pushToTalk === elements.talk.hidden && this.#showPushToTalk());
  }

  get active() {
    return this.#live.state.call !== "off";
  }

  // Shows who is speaking. `state` is the name of the connection's state; `expecting`: an answer is to come.
  show(state, expecting) {
    if (!this.active) return;
    const isReady = this.#live.state.call !== "asking";
    view.showSpeaker(...this.#speaker(state, expecting), isReady ? (performance.now() - this.#since) / 1000 : 0);
  }

  #speaker(state, expecting) {
    const { call, pushToTalk } = this.#live.state;
    const { voice } = this.#live;
    if (call === "asking") return ["none", voice.isAllowed ? "Starting…" : "Allow the microphone…"];
    if (call === "elsewhere") return ["none", "In another window"];
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
    const before = this.#state;
    this.#state = state;
    const goesOn = before !== "off" && before !== "asking";
    if (why || state === "asking") view.notice("microphone", why);
    view.showCall(state);
    cancelAnimationFrame(this.#frame);
    if (state === "on") this.#drawLevels();
    else this.#showTalking(false);
    if (state === "elsewhere") view.tellOfOtherWindow();
    if (goesOn && state !== "off") return;
    clearInterval(this.#timer);
    this.#since = performance.now();
    if (state === "off") return view.notice("echo");
    if (state === "asking") {
      this.#loud = -Infinity;
      view.showMuted(false);
    }
    this.#timer = setInterval(() => this.#tick(), TICK);
    if (state === "on" && this.#live.state.pushToTalk && document.activeElement === elements.audio) elements.talk.focus();
  }

  #tick() {
    const isSent = this.#talking || !this.#live.state.pushToTalk;
    if (isSent && this.#live.voice.levels().input > LOUD) this.#loud = performance.now();
    this.#on.changed();
  }

  #drawLevels() {
    view.showLevels(this.#live.voice.levels());
    this.#frame = requestAnimationFrame(() => this.#drawLevels());
  }

  #toggleMute() {
    const muted = !this.#live.voice.muted;
    this.#live.mute(muted);
    view.showMuted(muted);
    this.#on.changed();
  }

  // ---- what the microphone hears of the agent

  #tellOfEcho(heard) {
    const { mode, pushToTalk, halfDuplex } = this.#live.state;
    if (!heard || pushToTalk || mode === "half_duplex") return view.notice("echo");
    const why = "The microphone hears the agent, because the browser’s echo cancellation does not work here. ";
    const how = halfDuplex
      ? "So it is off while the agent speaks: to speak before the end, press Stop. With headphones it can stay on."
      : "So the agent may interrupt itself. Use headphones, or hold a button to talk.";
    const offer = (label, mode) => [label, () => this.#on.useMode(mode)];
    const actions = [offer("Push to talk", "push_to_talk"), ...(halfDuplex ? [offer("Keep it on", "open")] : [])];
    view.notice("echo", why + how, { actions });
  }

  // ---- push to talk

  #showPushToTalk() {
    this.#showTalking(false);
    const { pushToTalk } = this.#live.state;
    if (pushToTalk) {
      view.notice("echo");
      // There is no button to mute then, so nobody could be heard any more.
      if (this.#live.voice?.muted) this.#toggleMute();
    }
    this.#live.talk(false);
    view.showPushToTalk(pushToTalk);
  }

  #talk(talking) {
    if (talking === this.#talking || (talking && this.#live.state.call !== "on")) return;
    if (talking && this.#live.voice.playing) this.#on.stop();
    this.#live.talk(talking);
    this.#showTalking(talking);
    this.#on.changed();
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

  // The space bar, wherever it does nothing else.
  #holdSpaceToTalk() {
    let isHeld = false;
    const end = () => {
      if (isHeld) this.#talk(false);
      isHeld = false;
    };
    document.addEventListener("keydown", (event) => {
      if (event.key !== " " || event.ctrlKey || event.altKey || event.metaKey || event.target.closest(FIELDS)) return;
      if (!this.#live.state.pushToTalk || this.#live.state.call !== "on") return;
      event.preventDefault(); // it would scroll
      if (event.repeat) return;
      isHeld = true;
      this.#talk(true);
    });
    document.addEventListener("keyup", ({ key }) => key === " " && end());
    addEventListener("blur", end); // another window gets the key's end
  }
}
