// Markdown whose rest is still coming, made complete for a moment. Otherwise signs would be shown that vanish when the
// rest of them comes: "**bo", "[the link](http", "|---".

// Returns the Markdown that is to be drawn meanwhile.
export function completed(text) {
  const fences = [...text.matchAll(/^ {0,3}(?:```|~~~).*/gm)];
  if (fences.length % 2) return text; // in a block of code everything is as it is
  const last = fences.at(-1);
  const afterCode = last ? last.index + last[0].length : 0;
  const start = Math.max(text.lastIndexOf("\n\n") + 1, afterCode); // what is open ends with its paragraph
  const settled = text.slice(0, start);
  return settled + completedLine(withoutOpenLine(text.slice(start)));
}

const count = (text, what) => (text.match(what) ?? []).length;

// Without the last line, if it is not known yet what it is.
function withoutOpenLine(text) {
  const at = text.lastIndexOf("\n") + 1;
  const line = text.slice(at);
  // Signs only: it becomes an item, a heading, a table, a fence. A row of a table is shown when it is complete.
  if (/^[ \t>]*(?:[-=*+_`~#|:. \t]*|\d+[.)]?[ \t]*)$/.test(line) || line.startsWith("|")) text = text.slice(0, at);
  return /^\n*\|[^\n]*\n?$/.test(text) ? "" : text; // nor is a table without its second line known to be one
}

// With the ends of what is open in it.
function completedLine(text) {
  if (count(text, /`/g) % 2) return text.endsWith("`") ? text.slice(0, -1) : `${text}\``;
  text = text.replace(/!?\[([^[\]\n]*)\]?(?:(?<=\])\([^()\s]*(?:\([^()\s]*\)?)?)?$/, "$1");
  const isBold = count(text, /\*\*/g) % 2;
  const isItalic = count(text.replaceAll("**", ""), /\*(?=\S)/g) % 2;
  text = text.replace(isBold ? /\*+$/ : /(?<!\*)\*$/, "");
  const isStillBold = count(text, /\*\*/g) % 2;
  return text + (isItalic ? "*" : "") + (isStillBold ? "**" : "");
}
