// What a developer sees of a connection: all frames, and the ends of its sockets. They are told as messages, `frame` and
// `closed`, and frames are written to the console, too.

/** @typedef {import("./types.js").Message} Message */

const BASE64 = /("data":\s*")([A-Za-z0-9+/=_-]{200,})"/;
const UTF_8 = new TextEncoder();

/**
 * Makes what a ReconnectingSocket calls. Tokens are not told.
 *
 * @param {(message: Message) => void} tell
 */
export function observer(tell) {
  return {
    /** @param {"up" | "down"} direction @param {string | ArrayBuffer} frame */
    frame(direction, frame) {
      const isText = typeof frame === "string";
      const bytes = isText ? UTF_8.encode(frame).length : frame.byteLength;
      const text = isText ? frame.replace(BASE64, (_, key, data) => `${key}… ${data.length} characters"`) : "";
      console.log(direction === "up" ? "[CLIENT TO AGENT]" : "[AGENT TO CLIENT]", text || `sound, ${bytes} bytes`);
      tell({ type: "frame", direction, text, bytes, at: Date.now() });
    },

    /** @param {number} code @param {string} reason */
    closed(code, reason) {
      tell({ type: "closed", code, reason, at: Date.now() });
    },
  };
}
