// Asks an agent in a terminal, and shows its tools and its answer:
//
//   node examples/terminal.js http://localhost:8000 "What time is it in Tokyo?"

import { connect } from "relay-live";

const [url, question] = process.argv.slice(2);
const conversation = connect({ url });
conversation.say(question);
for await (const message of conversation) {
  if (message.type === "tool_start") console.log(`[${message.tool_name} …]`);
  if (message.type === "text") process.stdout.write(message.text);
  if (message.type === "error") console.error(message.message);
  if (message.type === "turn_end" || (message.type === "state" && message.name === "ended")) break;
}
console.log();
conversation.close();
