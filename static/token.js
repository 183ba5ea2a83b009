// The token that says who the user is, if the server wants one.
//
// It comes in the fragment of the page's address, as `#token=…` or behind another part, `#ROOM&token=…`: browsers send
// a fragment to no server. It is taken out of the address at once, and kept in memory only. So a page that is loaded
// again needs it again. The links with the attribute `data-token` take it along.
//
// A page in a frame of another page asks that one for a new token 30 seconds before the end: it gets the message
// {type: "relay.token_expiring", expires_in}, and changes the fragment of the frame.

import { authorization as headersFor } from "../clients/js/src/token.js";

let token = "";
const handlers = new Set();

// `former`: the fragment that the address keeps if there is nothing but a token in the new one.
function take(former = "") {
  const parts = location.hash.slice(1).split("&");
  const found = parts.find((part) => part.startsWith("token="));
  if (found === undefined) return false;
  const rest = parts.filter((part) => part !== found).join("&");
  history.replaceState(history.state, "", rest ? `#${rest}` : location.pathname + location.search + former);
  token = usable(found.slice("token=".length));
  return true;
}

// A text that can be neither a subprotocol nor in a header would be an error in the browser. So the server gets a word
// instead that it refuses, and says why.
function usable(text) {
  try {
    const decoded = decodeURIComponent(text);
    return /^[\w.~+-]*$/.test(decoded) ? decoded : "invalid";
  } catch {
    return "invalid";
  }
}

take();
addEventListener("hashchange", (event) => {
  if (take(new URL(event.oldURL).hash)) for (const handler of handlers) handler(token);
});

export const isSignedIn = () => token !== "";

export const currentToken = () => token;

// Calls `handler(token)` when the address gets a new token.
export const whenRenewed = (handler) => handlers.add(handler);

// The token expires in so many seconds.
export function askForAnother(seconds) {
  if (parent !== window) parent.postMessage({ type: "relay.token_expiring", expires_in: seconds }, location.origin);
}

// An address that opens a page of relay with a token. `room`: the room that it shows, in the demo.
export function withToken(url, itsToken = token, room = "") {
  const address = new URL(url, document.baseURI);
  address.hash = [room, `token=${encodeURIComponent(itsToken)}`].filter(Boolean).join("&");
  return address.href;
}

// Only while a link is followed: its address may be copied, and would give the token away.
function takeAlong({ target }) {
  const link = target.closest?.("a[data-token]");
  if (!link || !token) return;
  const plain = link.getAttribute("href");
  link.href = withToken(link.href, token, link.hash.slice(1));
  setTimeout(() => link.setAttribute("href", plain));
}

for (const kind of ["click", "auxclick"]) addEventListener(kind, takeAlong);

// The headers of a request.
export const authorization = () => headersFor(token);
