// Changes the sample rate of an endless stream: push() samples in, take() samples out.
//
// It is a windowed-sinc low-pass filter that is computed only for the output samples. Taking every third sample of
// 48 kHz would be simpler, but sound above 8 kHz would then become a hiss in the voice (aliasing). All state is in the
// object, so blocks of any size join without a click.

const LOBES = 24; // zero crossings of the sinc on either side: more is steeper, and costs more
const CUTOFF = 0.455; // as a share of the lower sample rate; below one half, because the filter needs a transition band
const BETA = 8; // of the Kaiser window: the stop band is 80 dB down
const MAX_PHASES = 640; // enough for the rates of sound hardware; with other rates, phases are rounded

export class Resampler {
  constructor(from, to) {
    const divisor = gcd(from, to);
    this.up = to / divisor;
    this.down = from / divisor;
    this.phases = Math.min(this.up, MAX_PHASES);

    const cutoff = CUTOFF * Math.min(1, to / from); // in cycles per input sample
    const half = Math.ceil(LOBES / (2 * cutoff));
    this.taps = 2 * half;
    this.kernels = new Float32Array(this.phases * this.taps);
    for (let phase = 0; phase < this.phases; phase++) {
      const kernel = this.kernels.subarray(phase * this.taps, (phase + 1) * this.taps);
      let sum = 0;
      for (let i = 0; i < this.taps; i++) {
        const distance = i - half + 1 - phase / this.phases;
        kernel[i] = sinc(2 * cutoff * distance) * kaiser(distance / half);
        sum += kernel[i];
      }
      for (let i = 0; i < this.taps; i++) kernel[i] /= sum; // the same loudness at every phase
    }

    // A ring that is written twice, so that the newest samples are always contiguous.
    this.history = new Float32Array(2 * this.taps);
    this.at = 0;
    this.phase = 0; // where the next output falls between two inputs, in units of 1/up
    this.due = 1; // how many inputs the next output still needs
  }

  get ready() {
    return this.due <= 0;
  }

  push(sample) {
    this.history[this.at] = this.history[this.at + this.taps] = sample;
    this.at = (this.at + 1) % this.taps;
    this.due--;
  }

  // One output sample. Call it only while `ready`.
  take() {
    const { kernels, history, taps, at } = this;
    const index = this.phases === this.up ? this.phase : Math.floor((this.phase * this.phases) / this.up);
    const kernel = index * taps;
    let sum = 0;
    for (let i = 0; i < taps; i++) sum += kernels[kernel + i] * history[at + i];

    this.phase += this.down;
    const whole = Math.floor(this.phase / this.up);
    this.due += whole;
    this.phase -= whole * this.up;
    return sum;
  }
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel(BETA * Math.sqrt(1 - x * x)) / bessel(BETA);
}

// The modified Bessel function of order zero, by its power series.
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > sum * 1e-9; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
