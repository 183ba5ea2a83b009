#!/usr/bin/env bash
# undici 6.29.1, which is the WebSocket of Node 20 and 22: one that the server refuses is never told as closed.
#
# Behaviour: when the server answers the upgrade with an error (401, 403, 503), there is an `error` event, but no `close`
#   event, and `readyState` stays CONNECTING. undici 7 (in Node 24) closes with 1006, as browsers do.
# Output seen: undici 6.29.1: error; readyState 0
#              undici 7.30.2: error, close 1006; readyState 3
# Why it surprises: by the WHATWG's standard a connection that fails ends with both events. Code that runs in browsers
#   does everything in `close`, because `error` says nothing.
# For a relay: a client for browsers waits in Node for ever after a restart of the server behind a proxy, or after a
#   refusal. It has to take an `error` before `open` for the end.
set -euo pipefail
npm=$(command -v npm) || { echo "this needs Node and npm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true}' >package.json
"$npm" install --silent --no-audit --no-fund old@npm:undici@6.29.1 new@npm:undici@7.30.2

cat >check.mjs <<'JAVASCRIPT'
import { deepStrictEqual } from "node:assert";
import { createServer } from "node:http";
import { setTimeout } from "node:timers/promises";

const server = createServer().on("upgrade", (request, socket) => {
  socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

async function told(name) {
  const { WebSocket } = await import(name);
  const { default: { version } } = await import(`./node_modules/${name}/package.json`, { with: { type: "json" } });
  const socket = new WebSocket(`ws://127.0.0.1:${server.address().port}/`);
  const events = [];
  for (const type of ["open", "error", "close"]) {
    socket.addEventListener(type, ({ code }) => events.push(code ? `${type} ${code}` : type));
  }
  await setTimeout(3000);
  console.log(`undici ${version}: ${events.join(", ")}; readyState ${socket.readyState}`);
  return [events, socket.readyState];
}

console.log("expected: error, close 1006; readyState 3");
const [old, now] = await Promise.all([told("old"), told("new")]);
server.close();
deepStrictEqual(old, [["error"], 0], "the behaviour has changed");
deepStrictEqual(now, [["error", "close 1006"], 3], "the behaviour has changed");
process.exit();
JAVASCRIPT
timeout 60 node --no-warnings check.mjs
