// The call: its start and its end, and its display.

import { stats, Voice } from "./audio.js";
import * as view from "./view.js";

const LOUD = 0.35; // of a level of 1: the user is speaking
const HANG = 500; // ms for which the user still counts as speaking afterwards: the pauses between words
const TICK = 100; // ms between two checks of who is speaking

const { elements } = view;

export class Call {
  #on;
  #pushToTalk = false;
  #talking = false;
  #call = null; // {voice, ready, since, loud, complained, timer, frame}; `ready`: the microphone is open

  // `on` has sound(buffer), which sends a frame of the microphone and returns what became of it (see connection.js);
  // started(), when the microphone is open; muted(); talking(talking), with push to talk; slow(), once a call, when sound was dropped; ended(wasReady); and
  // changed(), when the display may have to change.
  constructor(on) {
    this.#on = on;
    elements.audio.addEventListener("click", () => (this.#call ? this.end() : this.#start()));
    elements.mute.addEventListener("click", () => this.#toggleMute());
    this.#holdToTalk(elements.talk);
  }

  get active() {
    return this.#call !== null;
  }

  // The server has to be told when the user speaks: sound is only sent while the button is held.
  set pushToTalk(pushToTalk) {
    this.#talk(false);
    this.#pushToTalk = pushToTalk;
    view.showPushToTalk(pushToTalk);
  }

  // The loudspeaker and the microphone, while there is a call.
  get voice() {
    return this.#call?.voice;
  }

  // Ends the call, if there is one; `why` is shown.
  end(why) {
    if (!this.#call) return;
    this.#talk(false);
    const { voice, ready, timer, frame } = this.#call;
    this.#call = null;
    clearInterval(timer);
    cancelAnimationFrame(frame);
    voice.stop();
    view.showCall("off");
    if (why) view.notice("microphone", why);
    this.#on.ended(ready);
    this.#on.changed();
  }

  // Shows who is speaking. `state` is the name of the connection's state; `expecting`: an answer is to come.
  show(state, expecting) {
    if (!this.#call) return;
    const { ready, since } = this.#call;
    view.showSpeaker(...this.#speaker(state, expecting), ready ? (performance.now() - since) / 1000 : 0);
  }

  #speaker(state, expecting) {
    const { ready, voice, loud } = this.#call;
    if (!ready) return ["none", "Allow the microphone…"];
    if (state === "modelling") return ["none", "Reconnecting…"];
    if (state !== "connected") return ["none", "Connecting…"];
    if (voice.playing) return ["agent", "Agent is speaking"];
    if (voice.muted) return ["none", "You are muted"];
    if (this.#pushToTalk && !this.#talking && !expecting) return ["none", "Hold the button to talk"];
    if (performance.now() - loud < HANG) return ["user", "You are speaking"];
    if (expecting) return ["none", "Thinking…"];
    return ["none", "Listening"];
  }

  async #start() {
    const voice = new Voice();
    const call = { voice, ready: false, since: performance.now(), loud: -Infinity, complained: false };
    this.#call = call;
    view.notice("microphone");
    view.showCall("asking");
    view.showMuted(false);
    call.timer = setInterval(this.#on.changed, TICK);
    this.#on.changed();
    voice.onframe = (buffer) => this.#send(call, buffer);
    voice.onend = () => this.end("The microphone was disconnected, so audio has ended. You can go on in writing.");
    try {
      await voice.start();
    } catch (error) {
      if (this.#call === call) this.end(error.message);
      return;
    }
    if (this.#call !== call) return; // ended while the browser was asking
    call.ready = true;
    call.since = performance.now();
    view.showCall("on");
    this.#on.started();
    this.#drawLevels();
    this.#on.changed();
  }

  #send(call, buffer) {
    if (this.#pushToTalk && !this.#talking) return;
    if (call.voice.levels().input > LOUD) call.loud = performance.now();
    const { byteLength } = buffer;
    const fate = this.#on.sound(buffer);
    if (fate === "sent") {
      stats.sentFrames++;
      stats.sentBytes += byteLength;
    } else if (fate === "dropped" && !call.complained) {
      call.complained = true;
      this.#on.slow();
    }
  }

  #talk(talking) {
    if (talking === this.#talking || (talking && !this.#call?.ready)) return;
    this.#talking = talking;
    this.#on.talking(talking);
    view.showTalking(talking);
    this.#on.changed();
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
    const muted = !this.voice.muted;
    this.voice.mute(muted);
    if (muted) this.#on.muted();
    view.showMuted(muted);
    this.#on.changed();
  }

  #drawLevels() {
    if (!this.#call) return;
    view.showLevels(this.voice.levels());
    this.#call.frame = requestAnimationFrame(() => this.#drawLevels());
  }
}
