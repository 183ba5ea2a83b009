// The side bar with the user's conversations: to go to one, to begin one, to rename and to delete them. Beside the
// conversation where there is room, else in a drawer above it.
//
// Each conversation is an address of its own, so that the browser's history goes through them.

import { randomId } from "../clients/js/src/ids.js";
import { announce } from "./announcer.js";
import { ask } from "./api.js";
import { button, element } from "./elements.js";
import { iconButton } from "./icons.js";
import { remember, remembered } from "./settings.js";
import { isSignedIn, withToken } from "./token.js";

const PAGE = 50; // conversations that are listed at first, and more at a time
const MOST = 1000; // that the server lists
const DELAY = 300; // ms in which several reasons to read the list become one request
const MAX_TITLE = 80; // characters

const $ = (id) => document.getElementById(id);

export class Sidebar {
  #live;
  #user;
  #session;
  #nav = $("sidebar");
  #drawer = $("drawer");
  #button = $("conversations");
  #list = $("conversation-list");
  #isWide = matchMedia("(min-width: 56rem)");
  #limit = PAGE;
  #timer = 0;
  #reads = 0; // only what was asked for last is shown
  #shown = ""; // the JSON of what is shown
  #isOffered = false;

  // `user`: whose conversations they are where nobody signs in. `session`: the one that the address names; empty: the
  // user's default one.
  constructor({ live, user, session }) {
    this.#live = live;
    this.#user = user;
    this.#session = session || `live-${user}`;
    live.on("hello", ({ role, session_id: id }) => {
      this.#session = id;
      this.#offer(!role);
    });
    for (const type of ["renamed", "cleared", "confirmed", "turn_end"]) live.on(type, () => this.#refresh());
    this.#button.addEventListener("click", () => this.#toggle(!this.#isOpen));
    $("sidebar-close").addEventListener("click", () => this.#toggle(false));
    $("more-conversations").addEventListener("click", () => {
      this.#limit = Math.min(this.#limit + PAGE, MOST);
      this.#read();
    });
    this.#offerNew();
    // This event comes some time after Escape: the drawer may be open again.
    this.#drawer.addEventListener("close", () => this.#drawer.open || this.#show(false));
    this.#isWide.addEventListener("change", () => this.#show(this.#opensByItself));
    // Another tab may have changed the list, or this page was left and is shown again.
    for (const event of ["focus", "pageshow"]) addEventListener(event, () => this.#refresh());
  }

  // Each time that the link is followed it leads to another one: also in a new tab, and after the way back to this page.
  #offerNew() {
    const link = $("new-conversation");
    const renew = () => (link.href = this.#address(randomId()));
    for (const event of ["click", "auxclick", "contextmenu"]) link.addEventListener(event, renew);
    renew();
  }

  get #isOpen() {
    return !this.#nav.hidden && (this.#drawer.open || this.#nav.parentElement !== this.#drawer);
  }

  get #opensByItself() {
    return this.#isOffered && this.#isWide.matches && remembered("sidebar", false);
  }

  #offer(isOwn) {
    const isNews = isOwn !== this.#isOffered;
    this.#isOffered = isOwn;
    if (isNews) this.#show(this.#opensByItself);
    this.#button.hidden = !isOwn;
  }

  #toggle(open) {
    if (this.#isWide.matches) remember("sidebar", open);
    this.#show(open);
    if (!open) this.#button.focus();
  }

  #show(open) {
    const isInDrawer = open && !this.#isWide.matches;
    if (isInDrawer && this.#nav.parentElement !== this.#drawer) this.#drawer.append(this.#nav);
    if (!isInDrawer && this.#nav.parentElement === this.#drawer) this.#drawer.before(this.#nav);
    this.#nav.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
    if (!isInDrawer) this.#drawer.close();
    else if (!this.#drawer.open) this.#drawer.showModal();
    if (open) this.#read();
  }

  // ---- the list

  // Something has changed: reads the list soon, if it is seen.
  #refresh() {
    clearTimeout(this.#timer);
    if (this.#isOpen) this.#timer = setTimeout(() => this.#read(), DELAY);
  }

  async #read() {
    clearTimeout(this.#timer);
    const mine = ++this.#reads;
    let found;
    try {
      found = await ask("GET", `sessions?limit=${this.#limit}&user_id=${encodeURIComponent(this.#user)}`);
    } catch (error) {
      if (mine === this.#reads) this.#problem(error.message);
      return;
    }
    if (mine !== this.#reads) return;
    this.#problem("");
    const shown = JSON.stringify([found.sessions.map(facts), this.#session]);
    // What is being renamed, or has its buttons open, stays until that is done.
    if (shown === this.#shown || this.#list.querySelector("form, .actions:not([hidden])")) return;
    this.#shown = shown;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const place = focused && [focused.closest("li").dataset.id, focused.className];
    this.#list.replaceChildren(...found.sessions.map((session) => this.#entry(session)));
    $("no-conversations").hidden = found.sessions.length > 0;
    $("more-conversations").hidden = found.sessions.length < this.#limit || this.#limit >= MOST;
    if (!place) return;
    const item = [...this.#list.children].find(({ dataset }) => dataset.id === place[0]);
    (item?.getElementsByClassName(place[1])[0] ?? $("new-conversation")).focus();
  }

  #entry(session) {
    const { session_id: id } = session;
    const name = nameOf(session);
    const item = element("li");
    item.dataset.id = id;
    const link = element("a", "go");
    link.href = this.#address(id);
    link.dataset.token = "";
    link.append(element("span", "name", name), element("span", "when", dateOf(session.last_activity)));
    if (id === this.#session) link.setAttribute("aria-current", "page");
    const actions = element("div", "actions");
    actions.hidden = true;
    const more = iconButton("more", `Rename or delete “${name}”`, "round quiet more", () => {
      actions.hidden = !actions.hidden;
      more.setAttribute("aria-expanded", String(!actions.hidden));
      this.#refresh();
    });
    more.setAttribute("aria-expanded", "false");
    const rename = button("Rename", "rename", () => this.#rename(item, session));
    const remove = button("Delete", "delete", () => this.#delete(item, id, name));
    actions.append(rename, remove);
    item.append(link, more, actions);
    return item;
  }

  // The address of a conversation of this user, with what else is in the present one.
  #address(id) {
    const url = new URL(location.href);
    url.hash = "";
    if (id === `live-${this.#user}`) url.searchParams.delete("session");
    else url.searchParams.set("session", id);
    return url.href;
  }

  // ---- what is done with one

  #rename(item, session) {
    const form = element("form", "renaming");
    form.autocomplete = "off";
    const input = element("input");
    input.value = nameOf(session);
    input.maxLength = MAX_TITLE;
    input.setAttribute("aria-label", "Name of the conversation");
    form.append(input, element("button", "small-button", "Save"));
    item.replaceChildren(form);
    input.select();
    const done = () => {
      const entry = this.#entry(session);
      item.replaceWith(entry);
      entry.querySelector(".more").focus();
      this.#shown = "";
      this.#refresh();
    };
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.preventDefault(); // the drawer stays open
      event.stopPropagation(); // and an answer goes on
      done();
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        session.title = (await ask("PATCH", this.#path(session.session_id), { title: input.value })).title;
        announce("Renamed.");
        done();
      } catch (error) {
        this.#problem(error.message);
      }
    });
  }

  async #delete(item, id, name) {
    if (!confirm(`Delete “${name}”, and all that was said in it?`)) return;
    try {
      await ask("DELETE", this.#path(id));
    } catch (error) {
      if (error.status !== 404) return this.#problem(error.message); // 404: another tab has done it
    }
    announce("Deleted.");
    item.remove();
    if (id !== this.#session) return this.#read();
    const address = this.#address(randomId());
    location.replace(isSignedIn() ? withToken(address) : address);
  }

  #path(id) {
    return `sessions/${encodeURIComponent(id)}?user_id=${encodeURIComponent(this.#user)}`;
  }

  #problem(text) {
    if ($("sidebar-problem").textContent !== text) $("sidebar-problem").textContent = text;
  }
}

// What is shown of a conversation.
const facts = ({ session_id, title, first_text, last_activity }) => [session_id, title, first_text, dateOf(last_activity)];

const nameOf = ({ title, first_text: text }) => title || text || "Nothing was said yet";

function dateOf(iso) {
  const when = new Date(iso);
  const isToday = when.toDateString() === new Date().toDateString();
  return when.toLocaleString([], isToday ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium" });
}
