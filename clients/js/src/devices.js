// Microphones, loudspeakers and cameras: which there are, and how one is asked for.

/**
 * @typedef {{ id: string, label: string }} Device
 * @typedef {{ microphone: Device[], loudspeaker: Device[], camera: Device[] }} Devices
 */

const KINDS = { audioinput: "microphone", audiooutput: "loudspeaker", videoinput: "camera" };

/** Whether the loudspeaker can be chosen here. */
export const canChooseLoudspeaker = typeof AudioContext !== "undefined" && "setSinkId" in AudioContext.prototype;

/**
 * What there is. Browsers tell the names and the ids of devices only to pages that were allowed to use one of a kind:
 * before, a kind is empty. The default device, which browsers list a second time, is left out.
 *
 * @returns {Promise<Devices>}
 */
export async function listDevices() {
  /** @type {Devices} */
  const devices = { microphone: [], loudspeaker: [], camera: [] };
  for (const { kind, deviceId: id, label } of (await navigator.mediaDevices?.enumerateDevices()) ?? []) {
    if (["", "default", "communications"].includes(id) || !label) continue;
    devices[KINDS[kind]]?.push({ id, label });
  }
  return devices;
}

/**
 * Calls `handler()` when a device was connected or disconnected.
 *
 * @param {() => void} handler
 * @returns {() => void} ends it
 */
export function watchDevices(handler) {
  const { mediaDevices } = navigator;
  mediaDevices?.addEventListener("devicechange", handler);
  return () => mediaDevices?.removeEventListener("devicechange", handler);
}

/** @param {string} id of a microphone that may be gone: then it is the default one */
export function openMicrophone(id) {
  // Without echo cancellation the agent would hear itself, and interrupt itself.
  const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  return open("audio", wanted, id);
}

/** @param {string} id of a camera that may be gone */
export function openCamera(id) {
  return open("video", { width: { ideal: 1280 }, height: { ideal: 720 } }, id);
}

// `exact`, because browsers may give another one than the `ideal` one although that is there.
async function open(kind, wanted, id) {
  const ask = (device) => navigator.mediaDevices.getUserMedia({ [kind]: { ...wanted, ...device } });
  if (!id) return ask({});
  try {
    return await ask({ deviceId: { exact: id } });
  } catch (error) {
    if (!["OverconstrainedError", "NotFoundError"].includes(error.name)) throw error;
    return ask({});
  }
}

/** Must be called from a click. The user chooses what is shown. */
export function openScreen() {
  return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 }, audio: false });
}

/** Stops all that is recorded: the browser's indicator disappears. */
export function stopTracks(/** @type {MediaStream | null | undefined} */ stream) {
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
}
