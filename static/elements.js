// Elements of the pages. Everything is set as text, never as markup.

export function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

// A button that submits nothing.
export function button(text, className, onclick) {
  const node = element("button", className, text);
  node.type = "button";
  node.addEventListener("click", onclick);
  return node;
}

// A link to another site or to a mailbox, in a window of its own; plain text, if it is neither.
export function link(address, text) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!["http:", "https:", "mailto:"].includes(url?.protocol)) return element("span", "", text);
  const node = element("a", "", text);
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer";
  node.title = url.hostname || url.pathname;
  return node;
}
