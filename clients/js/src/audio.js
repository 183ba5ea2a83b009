// Microphone and loudspeaker of one call. Two worklets process the samples on the audio thread. They are connected so:
//
//   microphone → recorder ⇢ onframe(ArrayBuffer)          16 kHz, 16-bit, 40 ms
//   play(Int16Array) ⇢ player → analyser → loudspeaker    24 kHz, 16-bit
//                         └→ recorder                     how loud it is: see echo.js

import { listDevices, openMicrophone, stopTracks, watchDevices } from "./devices.js";
import { EchoMeter } from "./echo.js";
import * as failures from "./failures.js";
import { Played } from "./played.js";

const { within } = failures;

const ANSWERED = 60000; // ms for the user to allow the microphone
const STARTED = 10000; // ms until sound can be played
const FIRST_FRAME = 8000; // ms until the microphone gives sound
const SINK = 5000; // ms until another loudspeaker is used
const ECHO = 400; // ms for which what was played last may come back
const AUDIBLE = 0.003; // of full scale

// Counters for tests and for the console: totals since the page was loaded. Samples are counted at the wire's rates.
export const stats = {
  playedSamples: 0,
  playedNonSilent: 0,
  underruns: 0,
  flushedSamples: 0,
  sentFrames: 0,
  sentBytes: 0,
  receivedAudioBytes: 0,
  receivedFrames: 0,
  sentPictures: 0,
  sentPictureBytes: 0,
};

// Invariant: after stop() nothing is recorded and nothing is played, also if something that was asked for comes later.
export class Voice {
  /** @type {(frame: ArrayBuffer) => void} */
  onframe = () => {};
  /** @type {(why: string) => void} */
  onend = () => {}; // there is no microphone any more
  /** @type {(label: string) => void} */
  onchange = () => {}; // the microphone was disconnected, and this one is used instead
  /** @type {(isHeard: boolean) => void} */
  onecho = () => {}; // it was found out whether the microphone hears the loudspeaker
  /** @type {(heard: import("./played.js").Heard) => void} */
  onheard = () => {}; // so much was played of an answer that was interrupted
  isHalfDuplex = () => false; // whether silence takes the place of the microphone while the agent is heard
  playing = false;
  muted = false;
  #isHeld = false;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioNode | null} */
  #source = null;
  #recorder;
  #player;
  #analyser;
  #wave = new Float32Array(1024);
  #inputLevel = 0; // of the newest microphone frame
  #counted = { played: 0, nonSilent: 0, underruns: 0, flushed: 0 };
  #closed = false;
  #heardUntil = -Infinity; // when the agent was heard last
  #echo = new EchoMeter();
  #chosen = { microphone: "", loudspeaker: "" };
  #openings = 0; // microphones that were asked for: only the last one is used
  #unwatch = () => {};
  #firstFrame = () => {};
  #worklets;
  #answers;

  // `worklets`: the folder with the two worklets; a bundler does not bring them along. `isAnswering`: an answer is being
  // given already.
  constructor(worklets = new URL(".", import.meta.url), isAnswering = false) {
    this.#worklets = worklets;
    this.#answers = new Played(!isAnswering);
  }

  // Must be called from a click: browsers let a page make sound only after the user has touched it. Ends when the
  // microphone gives sound; `opened()` is called before, when it was allowed and sound can be played. Rejects with an
  // Error whose message can be shown.
  async start(chosen, opened) {
    Object.assign(this.#chosen, chosen);
    if (!navigator.mediaDevices || !window.AudioWorkletNode) throw new Error(failures.whyNoMicrophone());
    try {
      const started = await this.#start();
      if (this.#closed || !started) return;
      opened();
      await within(FIRST_FRAME, started.first, () => failures.SILENT);
    } catch (error) {
      this.stop();
      throw new Error(failures.whyNoSound(error), { cause: error });
    }
  }

  // Returns {first}, a promise of the microphone's first frame; nothing, if it was stopped meanwhile.
  async #start() {
    // Made before the first await, while the click still counts. No sample rate is asked for: see recorder.worklet.js.
    const context = (this.#context = new AudioContext({ latencyHint: "interactive" }));
    const worklets = ["recorder.worklet.js", "player.worklet.js"].map((name) => new URL(name, this.#worklets));
    const ready = Promise.all([context.resume(), ...worklets.map((url) => context.audioWorklet.addModule(url))]);
    ready.catch(() => {}); // it is waited for below
    const stream = await this.#open();
    if (this.#closed) {
      stopTracks(stream); // ended while the browser was still asking
      return;
    }
    this.#stream = stream;
    // Firefox without any output device settles none of these.
    const why = () => (context.state === "running" ? failures.NOT_LOADED : failures.NO_LOUDSPEAKER);
    await within(STARTED, ready, why);
    await this.#useLoudspeaker(this.#chosen.loudspeaker);
    if (this.#closed) return;

    this.#player = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#player.port.onmessage = ({ data }) => ("at" in data ? this.#flushed(data.at) : this.#played(data));
    this.#analyser = new AnalyserNode(context, { fftSize: this.#wave.length });
    this.#player.connect(this.#analyser).connect(context.destination);

    this.#recorder = new AudioWorkletNode(context, "recorder", {
      numberOfInputs: 2,
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit", // mixes a stereo microphone down
    });
    this.#recorder.port.onmessage = ({ data }) => this.#recorded(data);
    this.#player.connect(this.#recorder, 0, 1);
    const first = new Promise((resolve) => (this.#firstFrame = () => resolve(undefined)));
    this.#record(stream);

    // A phone call suspends the context, and the browser does not resume it.
    document.addEventListener("visibilitychange", this.#resume);
    this.#unwatch = watchDevices(() => this.#settle());
    return { first };
  }

  stop() {
    this.#closed = true;
    this.#openings++;
    this.playing = false;
    this.#firstFrame(); // nobody waits for it any more
    this.#unwatch();
    document.removeEventListener("visibilitychange", this.#resume);
    stopTracks(this.#stream);
    this.#context?.close().catch(() => {});
    this.#context = this.#stream = null;
  }

  // Whether the user has allowed the microphone.
  get isAllowed() {
    return this.#stream !== null;
  }

  mute(muted) {
    this.muted = muted;
    this.#inputLevel = 0;
    this.#enable();
  }

  // While it is held, nothing is recorded and nothing is played: the call is in another window.
  hold(isHeld) {
    this.#isHeld = isHeld;
    this.#inputLevel = 0;
    if (isHeld) {
      this.#answers.miss();
      this.flush();
    }
    this.#enable();
  }

  // Uses these devices from now on, where they are there.
  async use(chosen) {
    const before = this.#chosen.microphone;
    Object.assign(this.#chosen, chosen);
    if (!this.#recorder || this.#closed) return;
    if (this.#chosen.microphone !== before) await this.#switch(false);
    await this.#settle();
  }

  play(samples) {
    if (this.#isHeld || !this.#player) return this.#answers.miss();
    this.#answers.give(samples.length);
    // The buffer is moved to the audio thread, not copied.
    this.#player.port.postMessage(samples, [samples.buffer]);
    this.playing ||= samples.length > 0;
  }

  // So much sound was lost on its way.
  skip(milliseconds) {
    this.#answers.skip(milliseconds);
  }

  // What is played next is not all of an answer.
  miss() {
    this.#answers.miss();
    this.#player?.port.postMessage("end"); // the next sound does not continue the last one
  }

  // An answer is complete, as the message with this number tells.
  endOfTurn(seq) {
    this.#answers.ended(seq);
    this.#player?.port.postMessage("end");
  }

  // An answer was interrupted, as the message with this number tells: the open one, or else the last one, which is still
  // being played. What was not played yet is thrown away.
  interrupted(seq, isOpen) {
    const isPlaying = this.playing;
    if (isOpen) this.#answers.ended(seq);
    this.#flush(isOpen || isPlaying ? seq : 0);
  }

  // Throws away what was not played yet. `isOver`: of an answer that is complete, which the user stops.
  flush(isOver = false) {
    this.#flush(isOver && this.playing ? this.#answers.lastSeq : 0);
  }

  #flush(seq) {
    if (this.#player) {
      this.#answers.flush(this.#isHeld ? 0 : seq);
      this.#player.port.postMessage("flush");
    }
    this.playing = false;
  }

  // Loudness now, 0 to 1, of {input, output}.
  levels() {
    if (!this.#analyser || this.#closed) return { input: 0, output: 0 };
    this.#analyser.getFloatTimeDomainData(this.#wave);
    return { input: this.muted ? 0 : this.#inputLevel, output: loudness(this.#wave, 1) };
  }

  // ---- devices

  // Opens the chosen microphone, or the default one if that is gone.
  async #open() {
    const asked = openMicrophone(this.#chosen.microphone);
    try {
      return await within(ANSWERED, asked, () => failures.NOT_ALLOWED);
    } catch (error) {
      asked.then(stopTracks, () => {}); // it may be allowed later
      throw error;
    }
  }

  #record(stream) {
    const context = /** @type {AudioContext} */ (this.#context);
    this.#source?.disconnect();
    if (this.#stream !== stream) stopTracks(this.#stream);
    this.#stream = stream;
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(this.#recorder, 0, 0);
    stream.getAudioTracks()[0].onended = () => this.#switch(true);
    this.#enable();
    this.#echo = new EchoMeter(); // another one hears something else
  }

  // `isLost`: there is none at present.
  async #switch(isLost) {
    const mine = ++this.#openings;
    try {
      const stream = await this.#open();
      if (mine !== this.#openings) return stopTracks(stream);
      this.#record(stream);
      if (isLost) this.onchange(stream.getAudioTracks()[0].label);
    } catch {
      if (mine === this.#openings && isLost) this.onend(failures.DISCONNECTED);
    }
  }

  // Devices have come or gone, or others were chosen. What was chosen is used where it is there; where it is gone, the
  // microphone that is in use goes on.
  async #settle() {
    const { microphone, loudspeaker } = await listDevices();
    if (this.#closed) return;
    const has = (devices, id) => devices.some((each) => each.id === id);
    await this.#useLoudspeaker(has(loudspeaker, this.#chosen.loudspeaker) ? this.#chosen.loudspeaker : "");
    const inUse = this.#stream?.getAudioTracks()[0].getSettings().deviceId;
    const isBack = has(microphone, this.#chosen.microphone) && this.#chosen.microphone !== inUse;
    if (!this.#closed && isBack) await this.#switch(false);
  }

  async #useLoudspeaker(id) {
    const context = /** @type {any} */ (this.#context); // TypeScript does not know setSinkId
    if (!context?.setSinkId || context.sinkId === id) return;
    // One that is gone is no failure: the sound comes from the default one.
    await within(SINK, context.setSinkId(id), () => "").catch(() => {});
    this.#echo = new EchoMeter();
  }

  #enable() {
    // A track that is not enabled records no sound at all.
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !this.muted && !this.#isHeld;
  }

  #resume = () => {
    if (!document.hidden && this.#context && this.#context.state !== "running") this.#context.resume();
  };

  // ---- samples

  #recorded({ frame, heard, played }) {
    if (this.#closed) return;
    this.#firstFrame();
    if (this.muted || this.#isHeld) return;
    if (this.#echo.add(played, heard)) this.onecho(this.#echo.verdict === "echo");
    const now = performance.now();
    if (this.playing || played > AUDIBLE) this.#heardUntil = now + ECHO;
    const isHushed = this.isHalfDuplex() && now < this.#heardUntil;
    // Silence, not nothing: a model that is hearing somebody at this moment goes on to hear that this ends.
    if (isHushed) new Uint8Array(frame).fill(0);
    this.#inputLevel = isHushed ? 0 : loudness(new Int16Array(frame), 32768);
    this.onframe(frame);
  }

  #flushed(at) {
    // The loudspeaker's latency is left out: Firefox can stand still for minutes when it is asked for it.
    const heard = this.#closed ? null : this.#answers.flushed(at);
    if (heard) this.onheard(heard);
  }

  #played({ played, nonSilent, underruns, flushed, queued, playing }) {
    const before = this.#counted;
    stats.playedSamples += played - before.played;
    stats.playedNonSilent += nonSilent - before.nonSilent;
    stats.underruns += underruns - before.underruns;
    stats.flushedSamples += flushed - before.flushed;
    this.#counted = { played, nonSilent, underruns, flushed };
    this.playing = playing || queued > 0;
  }
}

// Loudness on a logarithmic scale, as people hear it: -55 dB of full scale is 0, -10 dB is 1.
function loudness(samples, full) {
  let sum = 0;
  for (const sample of samples) sum += (sample / full) ** 2;
  const decibels = 10 * Math.log10(sum / samples.length + 1e-12);
  return Math.max(0, Math.min(1, (decibels + 55) / 45));
}
