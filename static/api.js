// Requests to the server's HTTP interface.

import { authorization } from "./token.js";

const ASK_TIMEOUT = 10000; // ms

// A URL on the server. It is relative to the page, so that it is found under any prefix.
export const here = (path) => new URL(path, document.baseURI);

// Returns the JSON that the server answers. Throws an Error whose message can be shown.
export async function ask(method, path) {
  let response, body;
  try {
    response = await fetch(here(path), { method, headers: authorization(), signal: AbortSignal.timeout(ASK_TIMEOUT) });
    body = await response.json();
  } catch {
    throw new Error("The server does not answer.");
  }
  if (!response.ok) throw new Error(body.detail);
  return body;
}
