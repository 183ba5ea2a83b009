// What a camera or a screen shows, as pictures for the wire: one a second, JPEG, at most 768 pixels long.

const LONGEST = 768; // pixels: a live model looks at no more
const QUALITY = 0.7; // of a JPEG
const BASE64_PART = 0x8000; // bytes that are encoded at a time

// Invariant: at most one picture is being made. A moment at which no picture can be sent has none: it is not sent later.
export class Pictures {
  #video = document.createElement("video");
  #canvas = document.createElement("canvas");
  #stream;
  #interval;
  #isReady;
  #send;
  #timer;
  #isOver = false;

  /**
   * @param {MediaStream} stream which is not stopped here
   * @param {object} options
   * @param {() => number} options.interval milliseconds between two pictures
   * @param {() => boolean} options.isReady whether a picture can be sent now
   * @param {(picture: ArrayBuffer) => void} options.send
   */
  constructor(stream, { interval, isReady, send }) {
    this.#stream = stream;
    this.#interval = interval;
    this.#isReady = isReady;
    this.#send = send;
    this.#video.muted = true;
    this.#video.playsInline = true;
    this.#video.srcObject = stream;
    this.#video.play().catch(() => {}); // it is stopped before it has begun
    this.#video.onloadeddata = () => this.#tick();
  }

  stop() {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#video.onloadeddata = null;
    this.#video.srcObject = null;
  }

  async #tick() {
    if (this.#isOver) return;
    const began = performance.now();
    // A track that is muted has no picture at present: a window that is shown is minimized, for example.
    const isShown = this.#stream.getVideoTracks().some((track) => track.enabled && !track.muted);
    if (isShown && this.#isReady()) {
      const picture = await this.#draw();
      if (this.#isOver) return;
      if (picture) this.#send(await picture.arrayBuffer());
    }
    if (this.#isOver) return;
    this.#timer = setTimeout(() => this.#tick(), Math.max(0, this.#interval() - (performance.now() - began)));
  }

  /** @returns {Promise<Blob | null>} */
  #draw() {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, LONGEST / Math.max(videoWidth, videoHeight));
    this.#canvas.width = Math.max(1, Math.round(videoWidth * scale));
    this.#canvas.height = Math.max(1, Math.round(videoHeight * scale));
    const context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d"));
    context.drawImage(this.#video, 0, 0, this.#canvas.width, this.#canvas.height);
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", QUALITY));
  }
}

/** @param {ArrayBuffer | Uint8Array} data */
export function base64(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  let binary = "";
  for (let i = 0; i < bytes.length; i += BASE64_PART) {
    binary += String.fromCharCode(...bytes.subarray(i, i + BASE64_PART));
  }
  return btoa(binary);
}
