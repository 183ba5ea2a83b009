// Gives the user the whole conversation as a file: Markdown to read, JSON for programs.

const $ = (id) => document.getElementById(id);

// Offers it in the settings. `live`: the client; `older`: reads what is not shown yet (see older.js); `title()`: the
// conversation's name, if it has one.
export function offerExport({ live, older, title, announce }) {
  const say = (text) => {
    $("export-state").textContent = text;
    if (text) announce(text);
  };
  const give = async (kind) => {
    say("Reading the older messages…");
    try {
      await older.readAll();
    } catch (error) {
      return say(error.message);
    }
    const { state } = live;
    const name = title() || "Conversation";
    const text = kind === "md" ? asMarkdown(name, state.messages) : asJson(name, state);
    save(text, kind === "md" ? "text/markdown" : "application/json", fileName(name, kind));
    say(`${state.messages.length} messages were exported.`);
  };
  $("export-markdown").addEventListener("click", () => give("md"));
  $("export-json").addEventListener("click", () => give("json"));
  $("settings").addEventListener("close", () => say(""));
}

// `messages`: those of the client's state.
export function asMarkdown(title, messages) {
  return [`# ${title}`, ...messages.map(section)].join("\n\n") + "\n";
}

function section({ role, text, name, mine, time, tools, pictures, grounding, interrupted, beside }) {
  const who = role === "agent" ? "Agent" : name || (mine ? "You" : "User");
  const facts = [time && new Date(time).toLocaleString(), interrupted && "interrupted", beside && "in a separate conversation"];
  const heading = `## ${who}${facts.some(Boolean) ? ` (${facts.filter(Boolean).join(", ")})` : ""}`;
  const used = tools.map((tool) => `- used \`${tool.tool_name}\`: ${code(tool.arguments)} → ${code(tool.result)}`);
  const sources = (grounding?.sources ?? []).map(({ title: each, url }) => `- [${each || url}](<${url}>)`);
  const shown = pictures?.length ? `*With ${pictures.length === 1 ? "a picture" : `${pictures.length} pictures`}.*` : "";
  return [heading, used.join("\n"), text.trim(), shown, sources.join("\n")].filter(Boolean).join("\n\n");
}

// In marks of which there are more than there are inside.
function code(value) {
  const text = JSON.stringify(value) ?? "";
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map(({ length }) => length));
  const fence = "`".repeat(longest + 1);
  return longest ? `${fence} ${text} ${fence}` : `${fence}${text}${fence}`;
}

export function asJson(title, { sessionId, model, messages }) {
  const lines = messages.map(({ role, text, name, mine, time, tools, pictures, grounding, usage, interrupted, beside }) => ({
    role,
    text,
    ...(role === "user" && { mine, ...(name && { name }) }),
    ...(time && { time }),
    ...(tools.length && { tools }),
    ...(pictures?.length && { pictures: pictures.length }),
    ...(grounding && { grounding }),
    ...(usage && { usage }),
    ...(interrupted && { interrupted }),
    ...(beside && { beside }),
  }));
  return `${JSON.stringify({ title, session_id: sessionId, model, exported: new Date().toISOString(), messages: lines }, null, 2)}\n`;
}

// Without what a file system may not take.
export function fileName(title, kind, now = new Date()) {
  const name = title.replace(/[^\p{L}\p{N}._ -]+/gu, " ").replace(/\s+/g, " ").replace(/^[. ]+|[. ]+$/g, "").slice(0, 80);
  const two = (number) => String(number).padStart(2, "0");
  return `${name || "Conversation"} ${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}.${kind}`;
}

function save(text, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // browsers may read it later
}
