// The cards of tool calls that wait for the user: what is asked, and a way to answer. Everything is set as text, never as
// markup: what a card shows comes from a model.

import { element, link, pretty } from "./bubbles.js";

const CONFIRMATION = "adk_request_confirmation";
const CREDENTIAL = "adk_request_credential";
const ADKS_OWN_HINT = /^Please approve or reject the tool call/; // says nothing that the card does not say

let made = 0; // makes the ids of fields unique

export class WaitingCards {
  #cards = new Map(); // tool_id → {item, controls, state}
  #place;
  #send;
  #announce;

  // `place(item)` puts a card into the conversation. `send(toolId, result)` returns whether there is a connection.
  constructor({ place, send, announce }) {
    this.#place = place;
    this.#send = send;
    this.#announce = announce;
  }

  // A call waits. The server may tell the same again: after a reconnect, or when the tool has returned something.
  show(frame) {
    const known = this.#cards.get(frame.tool_id);
    if (known?.item.isConnected && known.interim === JSON.stringify(frame.interim)) return this.#enable(known, "");
    known?.item.remove();
    const card = this.#make(frame);
    this.#cards.set(frame.tool_id, card);
    this.#place(card.item);
    if (!known) this.#announce(`Your answer is needed: ${card.question}`);
  }

  // A user has answered. Returns whether there was a card.
  done({ tool_id, result }) {
    const card = this.#cards.get(tool_id);
    if (!card) return false;
    this.#cards.delete(tool_id);
    const yes = result?.confirmed;
    const answer = yes === true ? "Allowed" : yes === false ? "Not allowed" : "Answered";
    card.item.classList.add("done");
    card.controls.remove();
    card.state.textContent = answer;
    this.#announce(`${card.question} ${answer}.`);
    return true;
  }

  // The conversation was emptied: nothing waits any more.
  clear() {
    for (const { item } of this.#cards.values()) item.remove();
    this.#cards.clear();
  }

  // An answer was refused, or its connection was lost: it can be given again.
  refused(why) {
    for (const card of this.#cards.values()) this.#enable(card, card.sent ? why : "");
  }

  #enable(card, why) {
    card.sent = false;
    card.state.textContent = why;
    for (const control of card.controls.querySelectorAll("button, textarea")) control.disabled = false;
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
    item.append(title);
    if (hint && !ADKS_OWN_HINT.test(hint)) item.append(element("p", "", hint));
    if (name === CREDENTIAL) {
      const address = args.authConfig?.exchangedAuthCredential?.oauth2?.authUri;
      if (address) item.append(link(address, "Open the sign-in page"));
    } else item.append(...details("Arguments", call.args));
    if (interim !== undefined) item.append(...details("So far", interim));

    const card = { item, question, interim: JSON.stringify(interim), sent: false };
    card.controls = element("div", "controls");
    card.state = element("p", "waiting-state");
    card.state.setAttribute("role", "status");
    const field = isConfirmation && payload === null ? null : jsonField(isConfirmation ? "Details" : "Answer (JSON or text)");
    if (field) {
      field.area.value = pretty(isConfirmation ? payload : name === CREDENTIAL ? args.authConfig : "") ?? "";
      card.controls.append(field.label, field.area);
    }
    const answer = (result) => this.#answer(card, frame.tool_id, result);
    const buttons = element("div", "buttons");
    if (isConfirmation) {
      const confirm = (confirmed) => () => {
        const more = field ? parsed(field.area.value, true) : {};
        if (more.error) return this.#enable(card, more.error);
        answer(field ? { confirmed, payload: more.value } : { confirmed });
      };
      buttons.append(button("Allow", "primary", confirm(true)), button("Do not allow", "", confirm(false)));
    } else {
      const give = () => {
        const { value, error } = parsed(field.area.value, false);
        return error ? this.#enable(card, error) : answer(value);
      };
      buttons.append(button("Answer", "primary", give));
    }
    card.controls.append(buttons);
    item.append(card.controls, card.state);
    return card;
  }

  #answer(card, toolId, result) {
    if (!this.#send(toolId, result)) return this.#enable(card, "There is no connection. Please try again.");
    card.sent = true;
    card.state.textContent = "Sending…";
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

function button(text, className, onclick) {
  const node = element("button", `small-button ${className}`.trim(), text);
  node.type = "button";
  node.onclick = onclick;
  return node;
}
