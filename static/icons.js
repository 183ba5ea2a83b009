// Small drawings for buttons that are made by the program.

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  copy: "M9 9h10v11H9zM5 15V4h10",
  close: "m7 7 10 10M17 7 7 17",
  done: "m5 13 4.5 4.5L19 7",
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
