// Microphone → frames for the wire. Runs on the audio thread, which calls process() every 128 samples.

import { Resampler } from "./resampler.js";

const RATE = 16000; // samples per second that a live model expects
const FRAME = 640; // samples: 40 ms. Shorter ones cost the server more for each second of speech, longer ones delay it.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    // `sampleRate` is the device's own. An AudioContext with 16 kHz does not work in some browsers, where the
    // microphone's rate must be that of its context; and the loudspeaker would have 16 kHz, too.
    this.resampler = new Resampler(sampleRate, RATE);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }

  process([[channel]]) {
    if (!channel) return true; // no microphone connected at this moment
    for (const sample of channel) {
      this.resampler.push(sample);
      while (this.resampler.ready) this.write(this.resampler.take());
    }
    return true;
  }

  write(sample) {
    // The typed array stores the platform's byte order. Every platform with a browser is little-endian, as the wire is.
    this.frame[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
    if (this.filled < FRAME) return;
    this.port.postMessage(this.frame.buffer, [this.frame.buffer]); // moved, not copied
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }
}

registerProcessor("recorder", Recorder);
