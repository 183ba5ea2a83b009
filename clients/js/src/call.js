// A call: the microphone, the loudspeaker, and what is shown of a camera or a screen.

import { stats, Voice } from "./audio.js";
import { openCamera, openScreen, stopTracks } from "./devices.js";
import * as failures from "./failures.js";
import { OneCall } from "./one_call.js";
import { base64, Pictures } from "./pictures.js";

/**
 * @typedef {import("./types.js").Choices} Choices
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").State} State
 */

const ANSWERED = 60000; // ms for the user to allow the camera
const INTERVAL = 1000; // ms between two pictures
const SHARE = 4; // a picture and its ping use at most half of the frames that the server allows

// Invariants: there is a voice if, and only if, `state.call` is not "off". There are pictures if, and only if,
// `state.showing` is not empty, and then `state.call` is not "off".
export class Call {
  /** @type {Voice | null} */
  voice = null;
  /** @type {MediaStream | null} */
  shown = null;
  #connection;
  #host;
  #worklets;
  #oneCall;
  /** @type {Choices} */
  #choices = {};
  /** @type {Pictures | null} */
  #pictures = null;
  #isOpen = false; // the host was told that the call is opened
  #isTalking = false; // with push to talk, or told by talk()
  #hasComplained = false; // that the network is slow, in this call
  #showings = 0; // cameras and screens that were asked for: only the last one is shown
  #messagesPerSecond = Infinity; // that the server takes

  /**
   * @param {object} options
   * @param {import("./connection.js").Connection} options.connection
   * @param {string} options.name the same in all windows in which this user may have a call
   * @param {URL | undefined} options.worklets
   * @param {{ emit(message: Message): void, state(): State, opened(): void, ended(wasOpen: boolean): void,
   *   interrupt(): void }} options.host
   */
  constructor({ connection, name, worklets, host }) {
    this.#connection = connection;
    this.#host = host;
    this.#worklets = worklets;
    this.#oneCall = new OneCall(name, () => this.#lost());
  }

  // ---- the call

  async start() {
    if (this.#state.call === "elsewhere") return this.#takeBack();
    this.end();
    const voice = (this.voice = new Voice(this.#worklets, this.#state.answering));
    this.#hasComplained = false;
    voice.onframe = (buffer) => this.#record(buffer);
    voice.onend = (why) => this.end(why);
    voice.onchange = (label) => this.#tell("on", `The microphone was disconnected. Now this one is used: ${label}.`);
    voice.onecho = (isHeard) => this.#host.emit({ type: "echo", heard: isHeard });
    voice.onheard = (heard) => {
      if (this.#state.role !== "listen") this.#connection.sendControl("heard", heard);
    };
    voice.isHalfDuplex = () => this.#state.halfDuplex;
    this.#tell("asking");
    try {
      await voice.start(this.#devices, () => {
        this.#isOpen = true;
        this.#host.opened(); // the socket is there when the microphone gives sound
      });
    } catch (error) {
      if (this.voice === voice) this.end(error.message);
      throw error;
    }
    if (this.voice !== voice) return; // ended while the browser was asking
    this.#oneCall.take();
    this.#tell("on");
  }

  end(why = "") {
    if (!this.voice) return;
    this.hide();
    this.talk(false);
    const wasOpen = this.#isOpen;
    this.#isOpen = false;
    this.#oneCall.leave();
    this.voice.stop();
    this.voice = null;
    this.#tell("off", why);
    this.#host.ended(wasOpen);
  }

  // The call has begun, or goes on, in another window.
  #lost() {
    if (this.#state.call !== "on") return;
    this.hide();
    this.talk(false);
    this.voice?.hold(true);
    this.#connection.sendControl("audio_end"); // the user may have been speaking
    this.#tell("elsewhere");
  }

  #takeBack() {
    this.#oneCall.take();
    this.voice?.hold(false);
    this.#tell("on");
  }

  mute(muted) {
    this.voice?.mute(muted);
    // The user may be muted in the middle of a sentence: the server must not wait for the rest of it.
    if (muted) this.#connection.sendControl("audio_end");
  }

  talk(isTalking) {
    if (isTalking === this.#isTalking) return;
    this.#isTalking = isTalking;
    if (isTalking && this.voice?.playing) this.#host.interrupt(); // otherwise the microphone would hear it
    this.#connection.sendControl(isTalking ? "activity_start" : "activity_end");
  }

  greeted(/** @type {import("./types.js").HelloMessage} */ { limits }) {
    this.talk(false);
    this.#messagesPerSecond = limits?.messages_per_second ?? Infinity;
  }

  choose(/** @type {Choices} */ choices) {
    const { camera } = this.#choices;
    const { pushToTalk } = this.#state;
    this.#choices = { ...this.#choices, ...choices };
    this.#host.emit({ type: "choices", choices: this.#choices });
    // The user may have been speaking: the server must not wait for the rest of it.
    if (this.voice && this.#state.pushToTalk && !pushToTalk) this.#connection.sendControl("audio_end");
    this.voice?.use(this.#devices);
    const isAnother = this.#choices.camera !== camera && this.#state.showing === "camera";
    if (isAnother) this.show("camera").catch(() => {}); // a message tells
  }

  #record(buffer) {
    if (this.#state.pushToTalk && !this.#isTalking) return;
    const { byteLength } = buffer;
    const fate = this.#connection.sendSound(buffer);
    if (fate === "sent") {
      stats.sentFrames++;
      stats.sentBytes += byteLength;
    } else if (fate === "dropped" && !this.#hasComplained) {
      this.#hasComplained = true;
      this.#host.emit({ type: "slow" });
    }
  }

  // ---- camera and screen

  async show(/** @type {"camera" | "screen"} */ what) {
    if (this.#state.call !== "on") throw new Error("There is no call in which something could be shown.");
    const mine = ++this.#showings;
    let stream;
    try {
      stream = await this.#open(what);
    } catch (error) {
      if (mine !== this.#showings) return;
      const why = failures.whyNoPicture(what, error);
      this.#host.emit({ type: "showing", what: this.#state.showing, why });
      throw new Error(why, { cause: error });
    }
    if (mine !== this.#showings) return stopTracks(stream); // another one was asked for, or none any more
    this.#clear();
    this.shown = stream;
    this.#pictures = new Pictures(stream, {
      interval: () => Math.max(INTERVAL, (INTERVAL * SHARE) / this.#messagesPerSecond),
      isReady: () => this.#connection.hasReadPictures,
      send: (picture) => this.#send(picture),
    });
    const [track] = stream.getVideoTracks();
    // The user has stopped it in the browser's own bar, or the camera was disconnected.
    track.onended = () => this.hide(what === "camera" ? "The camera was disconnected." : "");
    this.#host.emit({ type: "showing", what, why: "" });
  }

  hide(why = "") {
    this.#showings++;
    if (!this.shown) return;
    this.#clear();
    this.#host.emit({ type: "showing", what: "", why });
  }

  #clear() {
    this.#pictures?.stop();
    stopTracks(this.shown);
    this.#pictures = this.shown = null;
  }

  async #open(what) {
    if (what === "screen") return openScreen(); // not bounded: the user chooses, and sees the browser's question
    const asked = openCamera(this.#choices.camera ?? "");
    try {
      return await failures.within(ANSWERED, asked, () => "Nobody has allowed the camera.");
    } catch (error) {
      asked.then(stopTracks, () => {}); // it may be allowed later
      throw error;
    }
  }

  #send(picture) {
    if (this.#connection.sendPicture("image/jpeg", base64(picture)) !== "sent") return;
    stats.sentPictures++;
    stats.sentPictureBytes += picture.byteLength;
  }

  // ----

  get #devices() {
    const { microphone = "", loudspeaker = "" } = this.#choices;
    return { microphone, loudspeaker };
  }

  get #state() {
    return this.#host.state();
  }

  #tell(/** @type {"asking" | "on" | "elsewhere" | "off"} */ state, why = "") {
    this.#host.emit({ type: "call", state, why });
  }
}
