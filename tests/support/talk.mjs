// A client of relay-live in Node, for tests. Reads a JSON array a line, a method of a conversation and its arguments, and
// writes a JSON object a line: each message, and the state after it.

import { createInterface } from "node:readline";

const [source, options] = process.argv.slice(2);
const { connect, sendMessageStream } = await import(source);
const { check } = await import(new URL("state.js", source));
const given = JSON.parse(options);
if (given.ws) given.WebSocket = (await import(given.ws)).WebSocket;

const tell = (told) => console.log(JSON.stringify(told));
const conversation = connect(given);
let stream;
let states = 0;
conversation.subscribe(() => {
  states++;
  check(conversation.state);
  freeze(conversation.state); // who changes it fails
});

function freeze(value) {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  Object.values(value).forEach(freeze);
}

const methods = {
  stream(data, url = given.url) {
    const report = (on) => (value) => tell({ on, value: value instanceof Error ? value.message : (value ?? null) });
    const names = ["onToolStart", "onToolComplete", "onResponse", "onDone", "onError"];
    stream = sendMessageStream(data, { url, ...Object.fromEntries(names.map((name) => [name, report(name)])) });
  },
  closeStream: () => stream.close(),
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const [name, ...values] = JSON.parse(line);
  tell({ called: name, returned: (methods[name] ?? ((...all) => conversation[name](...all)))(...values) ?? null });
});

tell({ state: conversation.state });
for await (const message of conversation) {
  if (message.type === "sound") message.samples = message.samples.length;
  tell({ message, state: conversation.state, states });
}
tell({ over: true });
process.stdin.destroy();
