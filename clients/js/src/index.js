// relay-live: talk with a live agent that relay serves, in text and by voice.

export { connect, Conversation } from "./conversation.js";
export { canChooseLoudspeaker, listDevices, watchDevices } from "./devices.js";
export { sendMessageStream } from "./turn.js";

/**
 * @typedef {import("./types.js").Choices} Choices
 * @typedef {import("./types.js").ConnectOptions} ConnectOptions
 * @typedef {import("./devices.js").Device} Device
 * @typedef {import("./devices.js").Devices} Devices
 * @typedef {import("./turn.js").StreamHandlers} StreamHandlers
 * @typedef {import("./turn.js").StreamOptions} StreamOptions
 * @typedef {import("./turn.js").TurnResponse} TurnResponse
 * @typedef {import("./types.js").ConnectionState} ConnectionState
 * @typedef {import("./types.js").Grounding} Grounding
 * @typedef {import("./types.js").HistoryLine} HistoryLine
 * @typedef {import("./types.js").Line} Line
 * @typedef {import("./types.js").Message} Message
 * @typedef {import("./types.js").Mode} Mode
 * @typedef {import("./types.js").Picture} Picture
 * @typedef {import("./types.js").State} State
 * @typedef {import("./types.js").StateDelta} StateDelta
 * @typedef {import("./types.js").Tool} Tool
 * @typedef {import("./types.js").Usage} Usage
 */

/**
 * The messages with one `type`.
 *
 * @template {Message["type"]} T
 * @typedef {import("./types.js").MessageOf<T>} MessageOf
 */
