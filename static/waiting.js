// The cards of tool calls that wait for the user: what is asked, and a way to answer. Both pages use them. Everything is
// set as text, never as markup: what a card shows comes from a model.

import { pretty } from "./bubbles.js";
import { button, element, link } from "./elements.js";

const CONFIRMATION = "adk_request_confirmation";
const CREDENTIAL = "adk_request_credential";
const ADKS_OWN_HINT = /^Please approve or reject the tool call/; // says nothing that the card does not say

const LISTENS = "Those who may write can answer this.";

const TOLD_WITHIN = 10000; // ms after entering a conversation in which the server has told all calls that wait

let made = 0; // makes the ids of elements unique

export class WaitingCards {
  #cards = new Map(); // tool_id → {item, question, interim, area, controls, state, sent, told}
  #telling = 0; // a timer: when it ends, cards that were not told again are over
  #place;
  #send;
  #announce;
  #listens = false; // the user may not answer

  // `place(item)` puts a card into the conversation. `send(toolId, result)` returns whether there is a connection.
  constructor({ place, send, announce }) {
    this.#place = place;
    this.#send = send;
    this.#announce = announce;
  }

  // A call waits. The server may tell the same again: after a reconnect, or when the tool has returned something.
  show(frame) {
    const known = this.#cards.get(frame.tool_id);
    if (known && known.interim === JSON.stringify(frame.interim)) {
      known.told = true;
      if (!known.item.isConnected) this.#place(known.item); // with what was written into it
      return;
    }
    const card = this.#make(frame);
    if (known?.area) card.area.value = known.area.value; // what the user has written so far
    known?.item.remove();
    this.#cards.set(frame.tool_id, card);
    this.#place(card.item);
    if (this.#listens) this.#enable(card, "");
    if (!known) this.#announce(this.#listens ? card.question : `Your answer is needed: ${card.question}`);
  }

  // Whether the user may only listen: then no card can be answered.
  set listens(listens) {
    if (listens === this.#listens) return;
    this.#listens = listens;
    for (const card of this.#cards.values()) this.#enable(card, "");
  }

  // A user has answered. Returns whether there was a card.
  done({ tool_id, result }) {
    const card = this.#cards.get(tool_id);
    if (!card) return false;
    const yes = result?.confirmed;
    this.#finish(tool_id, yes === true ? "Allowed" : yes === false ? "Not allowed" : "Answered");
    return true;
  }

  // There is a new socket. The server tells the calls that still wait; others were answered meanwhile.
  renew() {
    for (const card of this.#cards.values()) {
      card.told = false;
      if (card.sent) this.#enable(card, "The connection was lost. Please answer again.");
    }
    clearTimeout(this.#telling);
    this.#telling = setTimeout(() => {
      for (const [id, { told }] of this.#cards) if (!told) this.#finish(id, "No longer asked");
    }, TOLD_WITHIN);
  }

  // The conversation was emptied: nothing waits any more.
  clear() {
    clearTimeout(this.#telling);
    for (const { item } of this.#cards.values()) item.remove();
    this.#cards.clear();
  }

  // The server has refused something. Returns whether it was the answer of a card.
  refused({ code, message, tool_id }) {
    const card = this.#cards.get(tool_id);
    if (!card) return Boolean(tool_id);
    if (code === "unknown_tool") this.#finish(tool_id, "No longer asked");
    else this.#enable(card, message);
    return true;
  }

  #finish(toolId, how) {
    const card = this.#cards.get(toolId);
    this.#cards.delete(toolId);
    card.item.classList.add("done");
    card.controls.remove();
    card.state.removeAttribute("role"); // what is announced says more
    this.#setState(card, how);
    this.#announce(`${card.question} ${how}.`);
  }

  // The card can be answered, again.
  #enable(card, problem) {
    card.sent = false;
    this.#setState(card, this.#listens ? LISTENS : problem, !this.#listens);
    const controls = card.controls.querySelectorAll("button, textarea");
    for (const control of controls) {
      control.disabled = this.#listens;
      control.setAttribute("aria-describedby", card.state.id);
    }
    if (!this.#listens && document.activeElement === card.item) controls[0].focus();
  }

  #setState({ state }, text, isProblem = false) {
    state.textContent = text;
    state.classList.toggle("problem", isProblem);
  }

  #make(frame) {
    const { tool_name: name, arguments: args = {}, interim } = frame;
    const isConfirmation = name === CONFIRMATION;
    const call = isConfirmation ? (args.originalFunctionCall ?? {}) : { name, args };
    const { hint = "", payload = null } = (isConfirmation && args.toolConfirmation) || {};
    const question = isConfirmation
      ? `May the agent use ${call.name}?`
      : name === CREDENTIAL
        ? "The agent needs you to sign in."
        : `${name} waits for your answer.`;

    const item = element("section", "waiting-card");
    const title = element("h2", "", question);
    title.id = `waiting-${++made}`;
    item.setAttribute("aria-labelledby", title.id);
    item.tabIndex = -1; // has the focus while there is nothing in it that could have it
    item.append(title);
    if (hint && !ADKS_OWN_HINT.test(hint)) item.append(element("p", "", hint));
    if (name === CREDENTIAL) {
      const address = args.authConfig?.exchangedAuthCredential?.oauth2?.authUri;
      if (address) item.append(link(address, "Open the sign-in page"));
    } else item.append(...details("Arguments", call.args));
    if (interim !== undefined) item.append(...details("So far", interim));

    const card = { item, question, interim: JSON.stringify(interim), sent: false, told: true };
    card.controls = element("div", "controls");
    card.state = element("p", "waiting-state");
    card.state.setAttribute("role", "status");
    card.state.id = `state-${made}`;
    const field = isConfirmation && payload === null ? null : jsonField(isConfirmation ? "Details" : "Answer (JSON or text)");
    if (field) {
      card.area = field.area;
      field.area.value = pretty(isConfirmation ? payload : name === CREDENTIAL ? args.authConfig : "") ?? "";
      field.area.setAttribute("aria-describedby", card.state.id);
      card.controls.append(field.label, field.area);
    }
    const answer = (result) => this.#answer(card, frame.tool_id, result);
    const buttons = element("div", "buttons");
    if (isConfirmation) {
      const confirm = (confirmed) => () => {
        const more = field ? parsed(field.area.value, true) : {};
        if (more.error) return this.#correct(card, field, more.error);
        answer(field ? { confirmed, payload: more.value } : { confirmed });
      };
      buttons.append(button("Allow", "small-button primary", confirm(true)), button("Do not allow", "small-button", confirm(false)));
    } else {
      const give = () => {
        const { value, error } = parsed(field.area.value, false);
        return error ? this.#correct(card, field, error) : answer(value);
      };
      buttons.append(button("Answer", "small-button primary", give));
    }
    card.controls.append(buttons);
    item.append(card.controls, card.state);
    return card;
  }

  #correct(card, { area }, problem) {
    this.#enable(card, problem);
    area.focus();
  }

  #answer(card, toolId, result) {
    if (!this.#send(toolId, result)) return this.#enable(card, "There is no connection. Please try again.");
    card.sent = true;
    this.#setState(card, "Sending…");
    card.item.focus(); // a button loses it when it is disabled
    for (const control of card.controls.querySelectorAll("button, textarea")) control.disabled = true;
  }
}

function details(label, value) {
  if (value === undefined || value === null || (typeof value === "object" && !Object.keys(value).length)) return [];
  return [element("p", "tool-label", label), element("pre", "", pretty(value))];
}

function jsonField(text) {
  const area = element("textarea");
  area.id = `answer-${++made}`;
  area.rows = 3;
  area.spellcheck = false;
  const label = element("label", "", text);
  label.htmlFor = area.id;
  return { label, area };
}

// JSON, or else plain text, unless it has to be JSON.
function parsed(text, mustBeJson) {
  if (!text.trim()) return { error: "Write an answer first." };
  try {
    return { value: JSON.parse(text) };
  } catch {
    const isMeantAsJson = mustBeJson || /^\s*[{["]/.test(text);
    return isMeantAsJson ? { error: "This is not valid JSON. Please correct it." } : { value: text.trim() };
  }
}
