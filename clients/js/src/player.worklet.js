// Sound from the wire → loudspeaker. Runs on the audio thread, which calls process() every 128 samples.
//
// Chunks come in bursts with gaps between them, and the loudspeaker takes its samples at an even pace. So there is a
// queue. A model produces sound faster than it is played, and the queue may hold a whole answer: flush() empties it at
// once when the agent is interrupted.
//
// Messages in: an Int16Array of sound · "end" (the turn is over: what is queued is all there is) · "flush".
// Messages out: the counters below, whenever they have changed · {at} after a flush: how many samples had been played, or
// thrown away, when the queue was emptied, and nothing has come since.

import { Resampler } from "./resampler.js";

const RATE = 24000; // samples per second of a live model's sound
const MIN_LEAD = 0.08 * RATE; // samples queued before the first is played, so that a late chunk leaves no gap
const MAX_LEAD = 0.4 * RATE;
const FADE = 96; // samples: 4 ms, enough to avoid a click
const SILENT = 100; // of 32768: anything quieter counts as silence
const PAUSE = 1; // seconds: a longer silence inside a turn is the agent pausing, not the network being late
const REPORT = 2048; // samples of the device between two reports

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(RATE, sampleRate);
    this.queue = [];
    this.offset = 0; // into the first chunk of the queue
    this.queued = 0; // samples
    this.lead = MIN_LEAD; // grows after a gap, and shrinks again with each turn
    this.playing = false;
    this.ended = true; // no more sound is expected for this turn
    this.since = 0; // when the queue last became non-empty
    this.dry = null; // when the queue ran out in the middle of a turn, if it did
    this.gain = 0;
    this.last = 0;
    this.settled = 0; // samples of silence given to the resampler since it last had sound
    this.counters = { played: 0, nonSilent: 0, underruns: 0, flushed: 0 };
    this.changed = false;
    this.cutAt = null;
    this.untilReport = REPORT;
    this.port.onmessage = ({ data }) => {
      if (data === "flush") this.flush();
      else if (data === "end") this.end();
      else this.add(data);
    };
  }

  add(samples) {
    if (samples.length === 0) return;
    if (this.dry !== null) {
      if (currentTime - this.dry < PAUSE) {
        this.counters.underruns++;
        this.lead = Math.min(MAX_LEAD, this.lead * 1.5);
      }
      this.dry = null;
    }
    if (this.queue.length === 0) this.since = currentTime;
    this.cutAt = null;
    this.ended = false;
    this.queue.push(samples);
    this.queued += samples.length;
    this.changed = true;
  }

  end() {
    this.lead = Math.max(MIN_LEAD, this.lead * 0.9);
    this.ended = true;
    this.dry = null; // the queue ran out because the answer has ended
  }

  flush() {
    this.cutAt ??= this.counters.played + this.counters.flushed;
    this.counters.flushed += this.queued;
    this.queue = [];
    this.offset = 0;
    this.queued = 0;
    this.playing = false;
    this.ended = true;
    this.dry = null;
    this.changed = true;
    this.port.postMessage({ at: this.cutAt });
  }

  process(_inputs, [[out]]) {
    if (!this.playing && this.queued && this.mayStart()) {
      this.playing = true;
      this.gain = 0;
      this.changed = true;
    }
    if (this.playing || this.settled < this.resampler.taps + FADE) {
      for (let i = 0; i < out.length; i++) {
        while (!this.resampler.ready) this.resampler.push(this.next());
        out[i] = this.resampler.take();
      }
    } // otherwise `out` stays all zeros

    this.untilReport -= out.length;
    if (this.untilReport <= 0 && this.changed) {
      this.untilReport = REPORT;
      this.changed = false;
      this.port.postMessage({ ...this.counters, queued: this.queued, playing: this.playing });
    }
    return true;
  }

  mayStart() {
    // The wait is bounded: if the lead does not fill up in time, playing starts with the sound that is there.
    return this.ended || this.queued >= this.lead || currentTime - this.since > (2 * this.lead) / RATE;
  }

  next() {
    if (!this.playing) {
      // Falls to zero from the last sample: a sudden step would be heard as a click.
      this.settled++;
      return (this.last *= 0.95);
    }
    const chunk = this.queue[0];
    const value = chunk[this.offset++];
    if (this.offset === chunk.length) {
      this.queue.shift();
      this.offset = 0;
    }
    this.queued--;
    this.settled = 0;
    this.changed = true;
    this.counters.played++;
    if (value > SILENT || value < -SILENT) this.counters.nonSilent++;
    if (this.queued === 0) {
      this.playing = false;
      this.dry = this.ended ? null : currentTime;
    }
    this.gain = Math.min(1, this.gain + 1 / FADE);
    return (this.last = (value / 32768) * this.gain);
  }
}

registerProcessor("player", Player);
