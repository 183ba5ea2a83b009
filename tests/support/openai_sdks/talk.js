// OpenAI's SDKs for JavaScript as clients of relay, for tests. Prints what each of them was told, as JSON.

import { agents } from "./agents.js";
import { openai } from "./openai.js";

// `plain` and `secure`: the URLs of one relay, without and with TLS; `speech` and `silence`: sound, in base64.
const given = JSON.parse(process.argv[2]);

const told = Object.fromEntries(await Promise.all([...openai(given), ...agents(given)].map(named)));
console.log(JSON.stringify(told));
process.exit();

async function named([name, run]) {
  try {
    return [name, await run()];
  } catch (error) {
    return [name, { failed: String(error.stack ?? JSON.stringify(error)) }];
  }
}
