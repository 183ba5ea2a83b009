// Requests to the server's HTTP interface.

import { authorization } from "./token.js";

const ASK_TIMEOUT = 10000; // ms

// A URL on the server. It is relative to the page, so that it is found under any prefix.
export const here = (path) => new URL(path, document.baseURI);

// Returns the JSON that the server answers. Throws an Error whose message can be shown.
// `content` is sent as JSON. Such an Error also has the `status`, if there was an answer.
export async function ask(method, path, content) {
  let response, body;
  try {
    const signal = AbortSignal.timeout(ASK_TIMEOUT);
    response = await fetch(here(path), { method, headers: authorization(), signal, body: JSON.stringify(content) });
    body = await response.json();
  } catch {
    throw new Error("The server does not answer.");
  }
  if (!response.ok) throw Object.assign(new Error(body.detail), { status: response.status });
  return body;
}
