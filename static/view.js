// What the main page shows around the conversation: the connection's state, notices, the call, the box to write in.

import { announce } from "./announcer.js";
import { button, element } from "./elements.js";
import { iconButton } from "./icons.js";
import { areTyping, list } from "./people.js";
import { fit } from "./textbox.js";

const $ = (id) => document.getElementById(id);

export const elements = {
  messages: $("messages"),
  latest: $("latest"),
  composer: $("composer"),
  text: $("text"),
  send: $("send"),
  audio: $("audio"),
  mute: $("mute"),
  talk: $("talk"),
  takeBack: $("take-back"),
  stop: $("stop"),
  retry: $("retry-button"),
};

// ---- the connection

const SHORT = {
  connecting: "Connecting…",
  connected: "Connected",
  modelling: "Model reconnecting…",
  blocked: "Text only",
  asleep: "Asleep",
  ended: "Ended",
};

const BANNERS = {
  waiting: "The connection was lost. What you write is sent when it is back.",
  asleep: "Asleep, because nothing was said for a while. Write or speak to go on.",
};

let countdown = 0;
let announced = "connected";

export function showState(state) {
  clearInterval(countdown);
  $("state").dataset.state = state.name;
  $("state-text").textContent = state.again ? "Reconnecting…" : (SHORT[state.name] ?? "");
  if (state.name === "waiting") {
    const until = performance.now() + state.delay;
    const tick = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      $("state-text").textContent = seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
    };
    tick();
    countdown = setInterval(tick, 250);
  }

  const text = state.name === "ended" ? state.reason : BANNERS[state.name];
  const hadFocus = document.activeElement === elements.retry;
  // During a try after a pause the banner is not changed: it should not blink at every try.
  const trying = state.name === "waiting" || (state.again && !$("banner").hidden);
  $("banner").hidden = !text && !trying;
  if (text || trying) $("banner-text").textContent = text ?? BANNERS.waiting;
  elements.retry.hidden = state.name !== "ended" && !trying;
  elements.retry.textContent = state.name === "ended" ? "Try again" : "Try now";
  if (hadFocus && document.activeElement === document.body) focusText();

  // Screen readers are told what changed, not every second of a countdown.
  const kind = trying ? "waiting" : state.name;
  if (kind === announced || kind === "connecting") return;
  if (kind === "connected") announce("Connected again.");
  else if (kind === "modelling") announce("Reconnecting to the model.");
  else if (kind !== "blocked") announce($("banner-text").textContent); // a notice tells of "blocked"
  announced = kind;
}

export function showModel({ model, rehearsal }) {
  $("model").textContent = rehearsal ? "Rehearsal agent" : (model ?? "");
}

// ---- the others

// How many are connected to this conversation, this page included.
// `names`: of the others, as far as they have one.
export function showHere(count, names) {
  $("here").hidden = count < 2;
  $("here-count").textContent = `${count} here${names.length ? `: ${names.join(", ")}` : ""}`;
}

export function announceHere(count, names) {
  const who = names.length ? `, among them ${list(names)}` : "";
  announce(count > 1 ? `${count} are connected to this conversation now${who}.` : "Nobody else is here now.");
}

// `names`: of those who are typing; empty for who has none.
export function showWriting(names) {
  $("writing").hidden = names.length === 0;
  const unnamed = names.length > 1 ? `${names.length} people are typing…` : "Somebody is typing…";
  $("writing").textContent = names.every(Boolean) ? areTyping(names) : unnamed;
}

// ---- notices

// Shows a card; there is one of each kind. Without `text`, it goes away. `actions`: [[label, handler], …], which end it.
export function notice(kind, text, { onDismiss, actions = [] } = {}) {
  document.querySelector(`#notice [data-kind="${kind}"]`)?.remove();
  if (!text) return;
  const card = element("div", "card");
  card.dataset.kind = kind;
  const paragraph = document.createElement("p");
  paragraph.append(...[text].flat());
  const endedBy = (handler) => () => {
    card.remove();
    focusText();
    handler?.();
  };
  const buttons = actions.map(([label, handler]) => button(label, "small-button", endedBy(handler)));
  const close = iconButton("close", "Dismiss", "round quiet", endedBy(onDismiss));
  card.append(paragraph, ...buttons, close);
  $("notice").append(card);
  announce(paragraph.textContent);
}

export const code = (text) => element("code", "", text);

// ---- the call

// `stage` is "off", "asking" (for the microphone), "on" or "elsewhere" (in another window).
export function showCall(stage) {
  const on = stage !== "off";
  $("call").hidden = !on;
  elements.audio.classList.toggle("active", on);
  $("audio-label").textContent = on ? "End audio" : "Start audio";
  elements.mute.disabled = elements.talk.disabled = stage !== "on";
  const hadFocus = document.activeElement === elements.takeBack;
  elements.takeBack.hidden = stage !== "elsewhere";
  if (hadFocus && elements.takeBack.hidden) elements.audio.focus();
  if (stage !== "on") showLevels({ input: 0, output: 0 });
}

export function tellOfOtherWindow() {
  announce("The call is in another window of this browser now. A button takes it back.");
}

// `why`: the reason why the button is disabled; empty: it works.
export function showAudio(why = "") {
  const hadFocus = document.activeElement === elements.audio;
  elements.audio.disabled = Boolean(why);
  elements.audio.title = why;
  if (why && hadFocus) focusText();
}

// With push to talk, there is a button to hold while one speaks, and none to mute.
export function showPushToTalk(pushToTalk) {
  elements.talk.hidden = !pushToTalk;
  elements.mute.hidden = pushToTalk;
}

export function showTalking(talking) {
  elements.talk.setAttribute("aria-pressed", String(talking));
}

export function showMuted(muted) {
  elements.mute.setAttribute("aria-pressed", String(muted));
}

export function showSpeaker(who, text, seconds) {
  $("call").dataset.speaker = who;
  if ($("speaker").textContent !== text) $("speaker").textContent = text;
  $("call-time").textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

const shown = { "meter-in": 0, "meter-out": 0 };
let valuesShown = 0;

export function showLevels({ input, output }) {
  const now = performance.now();
  const isDue = now - valuesShown > 500; // often enough for assistive technology
  if (isDue) valuesShown = now;
  for (const [id, level] of Object.entries({ "meter-in": input, "meter-out": output })) {
    // Rises at once and falls slowly, so that it does not flicker.
    shown[id] = Math.max(level, shown[id] * 0.88);
    $(id).style.setProperty("--level", shown[id].toFixed(3));
    if (isDue) $(id).setAttribute("aria-valuenow", String(Math.round(shown[id] * 100)));
  }
}

// ---- writing

// Not on touch screens: the keyboard would cover half of the screen.
export function focusText() {
  if (matchMedia("(pointer: fine)").matches) elements.text.focus();
}

const suggestions = [...document.querySelectorAll(".suggestion")];

// Whether the user may only listen: then nothing can be used that says something, and a line says why.
export function showListening(listens) {
  const controls = [elements.text, elements.send, elements.audio, ...suggestions];
  const hadFocus = controls.includes(document.activeElement);
  const isNews = $("listening").hidden;
  $("listening").hidden = !listens;
  for (const control of controls) {
    control.disabled = listens;
    if (listens) control.setAttribute("aria-describedby", "listening");
    else control.removeAttribute("aria-describedby");
  }
  fitText();
  if (isNews && listens) announce($("listening").textContent);
  if (listens && hadFocus) elements.messages.focus();
}

export function showStop(shown) {
  const hadFocus = document.activeElement === elements.stop;
  elements.stop.hidden = !shown;
  if (!shown && hadFocus) focusText();
}

export function fitText() {
  fit(elements.text);
  elements.send.disabled = elements.text.disabled || !elements.text.value.trim();
}
