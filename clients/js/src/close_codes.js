// What a page does after its socket was closed. The number decides, never the reason: the reason is for people.
// The server's codes are listed in /docs#closes.

const IDLE = 4408;

const ACTIONS = {
  1000: "sleep", // done
  1008: "end", // the server could not read the frames of this page
  1011: "count",
  4411: "count", // the same, from servers that send no standard code
  [IDLE]: "sleep",
};

const FINAL_ERRORS = ["agent_failed", "model_refused", "model_unavailable"];

export const SIGN_IN = 4401;

const REASONS = {
  [SIGN_IN]: "The server wants you to sign in first.",
  4403: "The server does not let you in.",
  4404: "The server has no conversation at this address.",
};

// Returns what to do:
//   "sleep"  wait for the user: the next input opens another socket
//   "end"    do not come back: the same request would be refused again
//   "count"  come back after a pause, but not after many failures of the agent in a row
//   "retry"  come back after a pause
export function actionAfter(code) {
  if (code in ACTIONS) return ACTIONS[code];
  return code >= 4400 && code <= 4409 ? "end" : "retry"; // 4410 to 4499 pass, as 1001, 1006, 1012 and 1013 do
}

// Whether an error frame says that the agent has failed for good. The close follows, with a code that counts. Without
// such an error the code says nothing about the agent: servers and proxies use 1011 for their own failures, and for a
// laptop that slept.
export function isFinal(errorCode) {
  return FINAL_ERRORS.includes(errorCode);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// What is shown; `reason` is what the server has said.
export function reasonOf(code, reason) {
  const why = reason || (REASONS[code] ?? "The server has ended the connection.");
  return code === SIGN_IN ? `${sentence(why)} Open the link again that has brought you here, or ask for another one.` : why;
}
