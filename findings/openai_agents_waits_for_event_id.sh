#!/usr/bin/env bash
# @openai/agents-realtime 0.20.0: after an error that names no event of the client, it asks for no answer any more.
#
# Behaviour: a `response.create` holds back all later ones until `response.created`, `response.done`, or an error that
#   names its `event_id`. Without that name only an error with "response.create" in its message counts. There is no time
#   limit. Texts go on as `conversation.item.create`; the `response.create` after each of them is held back.
# Output seen, for three texts, with a server that answers each `response.create` with one error:
#   error.event_id names it:  item, create, item, create, item, create
#   error.event_id is null:   item, create, item, item
# Why it surprises: in the API `error.event_id` may be null, and "most errors are recoverable and the session will stay
#   open". The application is told the error, and its next `sendMessage()` returns as if all was well.
# For a relay: keep the id of a client's `response.create` until its answer begins, so that an error of the model far
#   behind can name it; or tell the answer as begun, and then as failed in `response.done`.
set -euo pipefail
npm=$(command -v npm) || { echo "this needs Node and npm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true}' >package.json
"$npm" install --silent --no-audit --no-fund @openai/agents-realtime@0.20.0 ws@8.23.0 zod@4.6.7

cat >check.mjs <<'JAVASCRIPT'
import { deepStrictEqual } from "node:assert";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { OpenAIRealtimeWebSocket } from "@openai/agents-realtime";
import { WebSocketServer } from "ws";

const NAMES = { "conversation.item.create": "item", "response.create": "create" };

/** What the server gets for three texts. It answers a `response.create` with an error that names `idOf(event_id)`. */
async function seen(idOf) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
  const events = [];
  server.on("connection", (socket) => {
    const send = (event) => socket.send(JSON.stringify({ event_id: "event", ...event }));
    send({ type: "session.created", session: { id: "session", type: "realtime" } });
    socket.on("message", (data) => {
      const { type, event_id } = JSON.parse(data);
      if (NAMES[type]) events.push(NAMES[type]);
      if (type !== "response.create") return;
      const error = { type: "server_error", code: "overloaded", message: "The model is busy.", param: null };
      send({ type: "error", error: { ...error, event_id: idOf(event_id) } });
    });
  });
  const client = new OpenAIRealtimeWebSocket({ url: `ws://127.0.0.1:${server.address().port}/` });
  let errors = 0;
  client.on("error", () => (errors += 1));
  await client.connect({ apiKey: "none", model: "model" });
  for (const text of ["one", "two", "three"]) {
    client.sendMessage(text, {});
    await setTimeout(1000);
  }
  client.close();
  server.close();
  return [events.join(", "), errors];
}

const { version } = JSON.parse(readFileSync("node_modules/@openai/agents-realtime/package.json"));
console.log("@openai/agents-realtime", version);
const named = await seen((id) => id);
const unnamed = await seen(() => null);
console.log("expected:", named[0]);
console.log("seen:    ", unnamed[0]);
console.log("errors that the application is told:", named[1], "and", unnamed[1]);
deepStrictEqual(named, ["item, create, item, create, item, create", 3], "the behaviour has changed");
deepStrictEqual(unnamed, ["item, create, item, item", 1], "the behaviour has changed");
process.exit();
JAVASCRIPT
timeout 60 node --no-warnings check.mjs
