// Draws Markdown, node by node: what marked (see vendor/README.md) finds in it decides which. There is no way for markup
// into the page: HTML is shown as the text that it is, a picture as a link to it, and links lead to web addresses and
// mailboxes only.
//
// A text that grows is drawn again with each of its chunks. So nodes that show the same as before stay, and with them what
// is selected in them, and blocks that no chunk can change any more are not even read again.

import { copyButton } from "./copy.js";
import { element, link } from "./elements.js";
import { completed } from "./unfinished.js";
import { lexer } from "./vendor/marked.js";

const drawn = new WeakMap(); // node → the token that it shows

// Invariant: the first #settled nodes show the first #length characters.
export class Markdown {
  #root;
  #level;
  #settled = 0;
  #length = 0;
  #levels = []; // of the headings above what is not settled, from the outermost

  // It is drawn into `root`. `level`: of the heading that it stands under, in the outline of the page.
  constructor(root, level) {
    this.#root = root;
    this.#level = level;
  }

  // Draws `source`, which begins with what was drawn before. `isOpen`: there is more to come.
  draw(source, isOpen) {
    if (!isOpen) this.#readAgain(source);
    const rest = source.slice(this.#length);
    const tokens = read(isOpen ? completed(rest) : rest);
    const levels = [...this.#levels];
    for (const token of tokens) if (token.type === "heading") token.level = this.#levelOf(token.depth, levels);
    drawAll(this.#root, tokens, this.#settled);
    if (isOpen) this.#settle(rest, tokens);
  }

  // What comes at the end may say what the beginning means: the addresses of links.
  #readAgain(source) {
    this.#settled = this.#length = 0;
    this.#levels = [];
    if (/^ {0,3}\[[^\]]+\]:/m.test(source)) this.#root.replaceChildren();
  }

  // The last block can still change, and all before it cannot.
  #settle(rest, tokens) {
    const last = tokens.findLastIndex(isShown);
    const before = tokens.slice(0, Math.max(last, 0));
    const raw = before.map((token) => token.raw).join("");
    if (!raw || !rest.startsWith(raw)) return;
    this.#length += raw.length;
    this.#settled += before.filter(isShown).length;
    for (const { type, depth } of before) if (type === "heading") this.#levelOf(depth, this.#levels);
  }

  // One heading under another is one level lower, however many signs it has.
  #levelOf(depth, levels) {
    while (levels.at(-1) >= depth) levels.pop();
    levels.push(depth);
    return Math.min(this.#level + levels.length, 6);
  }
}

// The text in it, for screen readers.
export function plain(source) {
  return read(source).filter(isShown).map(plainText).join("\n");
}

function plainText({ type, tokens, items, header, rows, text = "", raw }) {
  if (type === "table") return [header, ...rows].map((cells) => cells.map(plainText).join(", ")).join("\n");
  if (items) return items.map(plainText).join("\n");
  if (type === "hr") return "";
  if (type === "br") return "\n";
  if (type === "checkbox") return "";
  if (!tokens) return type === "text" ? decoded(text) : text || raw;
  return tokens.filter(isShown).map(plainText).join(type === "list_item" || type === "blockquote" ? "\n" : "");
}

function read(source) {
  try {
    return lexer(source);
  } catch {
    return [{ type: "html", block: true, raw: source, text: source }]; // quotes in quotes, thousands deep
  }
}

const isShown = ({ type }) => type !== "space" && type !== "def";

// Draws tokens as the children of a node, from the one with number `first` on.
function drawAll(parent, tokens, first = 0) {
  let at = first;
  for (const token of tokens) {
    if (!isShown(token)) continue;
    const node = parent.childNodes[at++];
    const before = node && drawn.get(node);
    if (before && isSame(before, token)) {
      if (before.raw === token.raw) continue;
      fill(node, token);
      drawn.set(node, token);
      continue;
    }
    const fresh = made(token);
    fill(fresh, token);
    drawn.set(fresh, token);
    if (node) node.replaceWith(fresh);
    else parent.append(fresh);
  }
  while (parent.childNodes.length > at) parent.lastChild.remove();
}

// Whether the node of one can show the other.
const isSame = (one, other) =>
  ["type", "block", "level", "href", "lang", "ordered", "start", "loose", "task", "align"].every(
    (key) => String(one[key]) === String(other[key]), // alignments are lists
  ) && !one.tokens === !other.tokens;

const NAMES = {
  paragraph: "p",
  blockquote: "blockquote",
  list_item: "li",
  strong: "strong",
  em: "em",
  del: "del",
  codespan: "code",
  hr: "hr",
  br: "br",
  row: "tr",
};

// A node for a token, without what is in it.
function made(token) {
  switch (token.type) {
    case "heading":
      return element(`h${token.level}`);
    case "list":
      return list(token);
    case "code":
      return codeBlock(token);
    case "table":
      return table();
    case "cell":
      return cell(token);
    case "link":
    case "image":
      return link(decoded(token.href), "");
    case "text":
      return token.tokens ? element("span", "line") : new Text();
    case "html":
      return token.block ? element("p") : new Text();
  }
  const name = Object.hasOwn(NAMES, token.type) && NAMES[token.type];
  const node = name ? element(name) : new Text();
  if (token.type === "list_item" && token.task) node.className = "task";
  return node;
}

// Puts into the node of a token what is in it.
function fill(node, token) {
  const { type, tokens, text } = token;
  if (type === "list") return drawAll(node, token.items);
  if (type === "row") return drawAll(node, token.cells);
  if (type === "table") return fillTable(node, token);
  if (type === "code") return setText(node.querySelector("code"), text);
  if (type === "image") return setText(node, text || token.href);
  if (type === "checkbox") return setData(node, token.checked ? "☑ " : "☐ ");
  if (tokens) return drawAll(node, tokens);
  if (node instanceof Text) return setData(node, type === "text" ? decoded(text) : (text ?? token.raw));
  if (text !== undefined) setText(node, text);
}

function setText(node, text) {
  if (node.firstChild instanceof Text) setData(node.firstChild, text);
  else node.textContent = text;
}

// Adding to a text keeps what is selected in it.
function setData(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

function list({ ordered, start }) {
  const node = element(ordered ? "ol" : "ul");
  if (ordered && start !== 1) node.start = start;
  return node;
}

function codeBlock({ lang }) {
  const node = element("div", "code");
  const bar = element("div", "code-bar");
  const code = element("code");
  bar.append(element("span", "", lang?.split(/\s/)[0] ?? ""), copyButton("Copy this code", () => code.textContent));
  node.append(bar, scrolling("pre", "Code", code));
  return node;
}

function table() {
  const node = element("table");
  node.append(element("thead"), element("tbody"));
  return scrolling("div", "Table", node);
}

// What may be too wide scrolls by itself, by keyboard too.
function scrolling(name, label, inner) {
  const node = element(name, "wide");
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", label);
  node.append(inner);
  return node;
}

function fillTable(node, { header, rows, align }) {
  const cells = (all, isHeader) =>
    all.map(({ tokens, text }, index) => ({ type: "cell", raw: text, tokens, align: align[index], level: isHeader }));
  const row = (all, isHeader) => ({ type: "row", raw: JSON.stringify(all.map(({ text }) => text)), cells: cells(all, isHeader) });
  drawAll(node.querySelector("thead"), [row(header, true)]);
  drawAll(node.querySelector("tbody"), rows.map((each) => row(each, false)));
}

function cell({ level: isHeader, align }) {
  const node = element(isHeader ? "th" : "td", align ?? "");
  if (isHeader) node.scope = "col";
  return node;
}

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–" };

// The characters that HTML's names stand for, as far as they are common in Markdown.
function decoded(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,6}));/gi, (whole, decimal, hex, name) => {
    if (name) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
    const point = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}
