// Microphone and loudspeaker of one call. Two worklets process the samples on the audio thread. They are connected so:
//
//   microphone → recorder ⇢ onframe(ArrayBuffer)          16 kHz, 16-bit, 40 ms
//   play(Int16Array) ⇢ player → analyser → loudspeaker    24 kHz, 16-bit

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
};

export class Voice {
  /** @type {(frame: ArrayBuffer) => void} */
  onframe = () => {};
  onend = () => {}; // the microphone went away by itself
  playing = false;
  muted = false;
  #context;
  #stream;
  #player;
  #analyser;
  #wave = new Float32Array(1024);
  #inputLevel = 0; // of the newest microphone frame
  #counted = { played: 0, nonSilent: 0, underruns: 0, flushed: 0 };
  #closed = false;
  #worklets;

  // `worklets`: the folder with the two worklets; a bundler does not bring them along.
  constructor(worklets = new URL(".", import.meta.url)) {
    this.#worklets = worklets;
  }

  // Must be called from a click: browsers let a page make sound only after the user has touched it.
  // Rejects with an Error whose message can be shown.
  async start() {
    if (!navigator.mediaDevices || !window.AudioWorkletNode) throw new Error(whyNoMicrophone());
    // Made before the first await, while the click still counts. No sample rate is asked for: see recorder.worklet.js.
    const context = (this.#context = new AudioContext({ latencyHint: "interactive" }));
    try {
      const [stream] = await Promise.all([
        navigator.mediaDevices.getUserMedia({
          // Without echo cancellation the agent would hear itself, and interrupt itself.
          audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
        }),
        context.audioWorklet.addModule(new URL("recorder.worklet.js", this.#worklets)),
        context.audioWorklet.addModule(new URL("player.worklet.js", this.#worklets)),
        context.resume(),
      ]);
      this.#stream = stream;
    } catch (error) {
      this.stop();
      throw new Error(explain(error), { cause: error });
    }
    if (this.#closed) return this.stop(); // ended while the browser was still asking

    const recorder = new AudioWorkletNode(context, "recorder", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit", // mixes a stereo microphone down
    });
    recorder.port.onmessage = ({ data }) => this.#recorded(data);
    context.createMediaStreamSource(this.#stream).connect(recorder);
    this.#stream.getAudioTracks()[0].onended = () => this.onend();

    this.#player = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#player.port.onmessage = ({ data }) => this.#played(data);
    this.#analyser = new AnalyserNode(context, { fftSize: this.#wave.length });
    this.#player.connect(this.#analyser).connect(context.destination);

    // A phone call suspends the context, and the browser does not resume it.
    document.addEventListener("visibilitychange", this.#resume);
  }

  stop() {
    this.#closed = true;
    this.playing = false;
    document.removeEventListener("visibilitychange", this.#resume);
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop(); // the browser's recording indicator disappears
    }
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }

  mute(muted) {
    this.muted = muted;
    this.#inputLevel = 0;
    // A muted track records no sound at all.
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  play(samples) {
    // The buffer is moved to the audio thread, not copied.
    this.#player?.port.postMessage(samples, [samples.buffer]);
    this.playing ||= samples.length > 0;
  }

  endOfTurn() {
    this.#player?.port.postMessage("end");
  }

  flush() {
    this.#player?.port.postMessage("flush");
    this.playing = false;
  }

  // Loudness now, 0 to 1, of {input, output}.
  levels() {
    if (!this.#analyser) return { input: 0, output: 0 };
    this.#analyser.getFloatTimeDomainData(this.#wave);
    return { input: this.muted ? 0 : this.#inputLevel, output: loudness(this.#wave, 1) };
  }

  #resume = () => {
    if (!document.hidden && this.#context.state !== "running") this.#context.resume();
  };

  #recorded(buffer) {
    if (this.muted || this.#closed) return;
    this.#inputLevel = loudness(new Int16Array(buffer), 32768);
    this.onframe(buffer);
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

const WRITING_WORKS = "You can go on in writing.";

function whyNoMicrophone() {
  if (!window.isSecureContext) {
    return (
      `Browsers give the microphone only to pages that came over https, or from localhost. This one came from ` +
      `${location.origin}. ${WRITING_WORKS}`
    );
  }
  return `This browser cannot record sound. ${WRITING_WORKS}`;
}

function explain(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return (
        "The microphone was refused. To speak, allow it in the browser’s settings for this page (beside the " +
        `address), then press Start audio again. ${WRITING_WORKS}`
      );
    case "NotFoundError":
    case "OverconstrainedError":
      return `No microphone was found. Connect one and press Start audio again. ${WRITING_WORKS}`;
    case "NotReadableError":
    case "AbortError":
      return `The microphone gives no sound: another program may be using it. ${WRITING_WORKS}`;
    default:
      return `Sound could not be started (${error.name}: ${error.message}). ${WRITING_WORKS}`;
  }
}
