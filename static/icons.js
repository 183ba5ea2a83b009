// Small drawings, and buttons that show one, for what is made by the program.

import { button } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  again: "M19 12a7 7 0 1 1-2-5l2 2m0-4v4h-4",
  copy: "M9 9h10v11H9zM5 15V4h10",
  close: "m7 7 10 10M17 7 7 17",
  edit: "m4 20 1-4L16 5l3 3L8 19zM14 7l3 3",
  done: "m5 13 4.5 4.5L19 7",
  more: "M6 12h.01M12 12h.01M18 12h.01",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

// `label` says what it does.
export function iconButton(name, label, className, onclick) {
  const node = button("", className, onclick);
  node.title = label;
  node.setAttribute("aria-label", label);
  node.append(icon(name));
  return node;
}
