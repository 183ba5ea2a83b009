// The state of the rooms' connection, at the top of the page.

const state = document.getElementById("state");
const text = document.getElementById("state-text");

const STATES = {
  connecting: "Connecting…",
  connected: "Connected",
  waiting: "Reconnecting…",
  asleep: "Asleep",
  ended: "Ended",
};

export function showConnection(name) {
  state.dataset.state = name;
  text.textContent = STATES[name];
}

// `ms`: how long a ping and its answer have taken.
export function showTrip(ms) {
  text.textContent = `${STATES.connected} · ${Math.max(1, Math.round(ms))} ms`;
}
