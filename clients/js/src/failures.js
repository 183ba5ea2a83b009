// Why there is no sound or picture, for people; and waits that end.

const WRITING_WORKS = "You can go on in writing.";

/** A failure whose message can be shown. */
export class Failure extends Error {
  name = "Failure";
}

/**
 * Waits, but not for ever: some browsers leave promises open, for a device that is not there or a question that nobody
 * answers.
 *
 * @template T
 * @param {number} milliseconds
 * @param {Promise<T>} promise
 * @param {() => string} why what the message of the failure is
 * @returns {Promise<T>}
 */
export async function within(milliseconds, promise, why) {
  let timer;
  const over = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failure(why())), milliseconds);
  });
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}

export function whyNoMicrophone() {
  if (!window.isSecureContext) {
    return (
      `Browsers give the microphone only to pages that came over https, or from localhost. This one came from ` +
      `${location.origin}. ${WRITING_WORKS}`
    );
  }
  return `This browser cannot record sound. ${WRITING_WORKS}`;
}

export const NOT_ALLOWED = `Nobody has allowed the microphone, so audio was not started. ${WRITING_WORKS}`;

export const NO_LOUDSPEAKER =
  "No loudspeaker was found, and this browser starts no sound without one, nor a microphone. Connect a loudspeaker or " +
  `headphones and press Start audio again. ${WRITING_WORKS}`;

export const NOT_LOADED = `The programs for sound did not load. Press Start audio again. ${WRITING_WORKS}`;

export const SILENT = `The microphone gives no sound: another program may be using it. ${WRITING_WORKS}`;

export const DISCONNECTED = `The microphone was disconnected, so audio has ended. ${WRITING_WORKS}`;

/** Why the microphone could not be opened. */
export function whyNoSound(error) {
  switch (error.name) {
    case "Failure":
      return error.message;
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
      return SILENT;
    default:
      return `Sound could not be started (${error.name}: ${error.message}). ${WRITING_WORKS}`;
  }
}

/**
 * Why the camera or the screen could not be shown; empty: the user did not want it.
 *
 * @param {"camera" | "screen"} what
 */
export function whyNoPicture(what, error) {
  switch (error.name) {
    case "Failure":
      return error.message;
    case "NotAllowedError":
    case "SecurityError":
      if (what === "screen") return "";
      return "The camera was refused. Allow it in the browser’s settings for this page (beside the address).";
    case "NotFoundError":
    case "OverconstrainedError":
      return what === "screen" ? "There is no screen to show." : "No camera was found.";
    case "NotReadableError":
    case "AbortError":
      return `The ${what} gives no picture: another program may be using it.`;
    default:
      return `The ${what} could not be shown (${error.name}: ${error.message}).`;
  }
}
