// What a page does after its socket was closed. The number decides, never the reason: the reason is for people.
// The server's codes are listed in /docs#closes.

const IDLE = 4408;

const ACTIONS = {
  1000: "sleep", // done
  1008: "end", // the server could not read what this page sent
  1011: "count", // the agent failed; an error frame has told why
  [IDLE]: "sleep",
};

const REASONS = {
  4401: "The server wants you to sign in first.",
  4403: "The server does not let you in.",
  4404: "The server has no conversation at this address.",
};

// Returns what to do:
//   "sleep"  wait for the reader: the next input opens another socket
//   "end"    stay away: the same request would be refused again
//   "count"  come back after a pause, but not after many failures in a row
//   "retry"  come back after a pause
export function actionAfter(code) {
  if (code in ACTIONS) return ACTIONS[code];
  return code >= 4400 && code <= 4409 ? "end" : "retry"; // 4410 to 4499 pass, as 1001, 1006, 1012 and 1013 do
}

// The sentence that is shown when the server has given no reason.
export function reasonOf(code) {
  return REASONS[code] ?? "The server has ended the connection.";
}
