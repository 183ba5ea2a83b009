// The call: from the button that starts it to the one that ends it, with its display.

import { stats, Voice } from "./audio.js";
import * as view from "./view.js";

const LOUD = 0.35; // of a level of 1: somebody is speaking
const HANG = 500; // ms for which they still count as speaking afterwards: the pauses between words
const TICK = 100; // ms between two looks at who is speaking

const { elements } = view;

export class Call {
  #on;
  #call = null; // {voice, ready, since, loud, complained, timer, frame}; `ready`: the microphone is open

  // `on` has sound(buffer), which sends a frame of the microphone and returns what became of it (see connection.js);
  // started(), when the microphone is open; muted(); slow(), once a call, when sound was dropped; ended(wasReady); and
  // changed(), when the display may have to change.
  constructor(on) {
    this.#on = on;
    elements.audio.addEventListener("click", () => (this.#call ? this.end() : this.#start()));
    elements.mute.addEventListener("click", () => this.#toggleMute());
  }

  get active() {
    return this.#call !== null;
  }

  // The loudspeaker and the microphone, while there is a call.
  get voice() {
    return this.#call?.voice;
  }

  // Ends the call, if there is one; `why` is shown.
  end(why) {
    if (!this.#call) return;
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
    voice.onend = () => this.end("The microphone went away, so audio was ended. You can go on in writing.");
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
