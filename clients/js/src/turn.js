// The turn dialect: one question, the events of its answer, and the end.

import { askOverHttp } from "./fallback.js";
import { subprotocols } from "./token.js";
import { baseOf } from "./urls.js";

/**
 * @typedef {import("./types.js").Tool} Tool
 *
 * @typedef {object} TurnResponse the whole answer
 * @property {string} content
 * @property {Tool[]} tool_calls
 * @property {boolean} [interrupted] it was cut
 * @property {import("./types.js").Usage} [usage]
 * @property {import("./types.js").Grounding} [grounding]
 *
 * @typedef {object} StreamHandlers
 * @property {(tool: Tool) => void} [onToolStart] a tool was called: its `result` is null
 * @property {(tool: Tool) => void} [onToolComplete] the tool with the same `tool_id` has returned its `result`
 * @property {(response: TurnResponse) => void} [onResponse]
 * @property {() => void} [onDone] nothing follows
 * @property {(error: Error) => void} [onError] instead of the answer; nothing follows
 *
 * @typedef {object} StreamOptions
 * @property {string | URL} [url] where relay is; left out: where the page is
 * @property {string} [token] if the server wants one
 * @property {any} [WebSocket] a WebSocket class, for Node before 22
 * @property {typeof globalThis.fetch} [fetch]
 */

/**
 * Asks a question. Where no WebSocket gets through, it goes over HTTP.
 *
 * @param {{ session_id: string, message: string, state_delta?: import("./types.js").StateDelta }} data state_delta: what
 *   it sets in the session's state, which the agent's instruction sees in this turn
 * @param {StreamHandlers & StreamOptions} [options]
 * @returns {{ close(): void }} stops the answer: nothing is called any more
 */
export function sendMessageStream(data, options = {}) {
  const { url = "", token = "", WebSocket = globalThis.WebSocket, fetch = globalThis.fetch } = options;
  const base = baseOf(url);
  const controller = new AbortController();
  const { signal } = controller;
  /** @type {Map<string, Tool>} */
  const tools = new Map();
  let isOver = false;

  const end = () => {
    isOver = true;
    controller.abort();
  };
  const fail = (/** @type {string} */ message) => {
    if (isOver) return;
    end();
    options.onError?.(new Error(message));
  };
  const take = (/** @type {any} */ event) => {
    if (isOver) return;
    const { type, timestamp, ...told } = event;
    switch (type) {
      case "tool_start":
        tools.set(told.tool_id, { result: null, ...told });
        return options.onToolStart?.(/** @type {Tool} */ (tools.get(told.tool_id)));
      case "tool_complete":
        tools.set(told.tool_id, { ...tools.get(told.tool_id), ...told });
        return options.onToolComplete?.(/** @type {Tool} */ (tools.get(told.tool_id)));
      case "response":
        return options.onResponse?.({ ...told, tool_calls: told.tool_calls.map((call) => ({ result: null, ...call })) });
      case "done":
        end();
        return options.onDone?.();
      case "error":
        return fail(told.message);
    }
  };

  async function ask() {
    try {
      const events = askOverHttp(new URL("api/v1/chat", base), data, { token, fetch, signal });
      for await (const event of events) take(event);
      fail("The answer was cut off.");
    } catch (error) {
      fail(error.message);
    }
  }

  const socketURL = new URL("api/v1/chat/stream", base);
  socketURL.protocol = base.protocol.replace("http", "ws");
  const socket = new WebSocket(socketURL, subprotocols([], token));
  let isOpen = false;
  socket.onopen = () => {
    isOpen = true;
    if (!isOver) socket.send(JSON.stringify(data));
  };
  socket.onmessage = ({ data: text }) => take(JSON.parse(text));
  socket.onclose = ({ reason }) => {
    socket.onclose = socket.onerror = () => {};
    if (!isOver && !isOpen) return ask(); // the server has got nothing yet
    fail(reason || "The answer was cut off.");
  };
  // A close follows, which says more; but not in Node 20, if the server does not take the WebSocket.
  socket.onerror = () => isOpen || socket.onclose({});
  signal.addEventListener("abort", () => socket.close(1000));
  return { close: end };
}
