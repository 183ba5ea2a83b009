// Microphone → frames for the wire. Runs on the audio thread, which calls process() every 128 samples.
//
// A second input is what the loudspeaker plays, of which only the level is told: see echo.js.
//
// Messages out: {frame: ArrayBuffer, heard, played}; the levels are root mean squares, of 1.

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
    this.heard = new Level();
    this.played = new Level();
  }

  process([[channel], [played]]) {
    if (!channel) return true; // no microphone connected at this moment
    this.heard.add(channel);
    this.played.add(played ?? SILENCE);
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
    const { buffer } = this.frame;
    this.port.postMessage({ frame: buffer, heard: this.heard.take(), played: this.played.take() }, [buffer]); // moved
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }
}

// The root mean square of all samples since it was taken last.
class Level {
  sum = 0;
  count = 0;

  add(samples) {
    for (const sample of samples) this.sum += sample * sample;
    this.count += samples.length;
  }

  take() {
    const level = this.count ? Math.sqrt(this.sum / this.count) : 0;
    this.sum = this.count = 0;
    return level;
  }
}

const SILENCE = new Float32Array(128);

registerProcessor("recorder", Recorder);
