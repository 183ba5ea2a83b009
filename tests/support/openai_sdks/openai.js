// The package `openai`: both of its clients, on `ws` and on the WebSocket that Node has itself.

import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

import { PAINT, WAIT } from "./common.js";

const opened = {
  ws: (client, options) => new OpenAIRealtimeWS({ model: "agent", ...options }, client),
  "built-in": (client) => new OpenAIRealtimeWebSocket({ model: "agent" }, client),
};

export function* openai(given) {
  for (const kind of Object.keys(opened)) yield [`openai, ${kind}`, () => talk(given, kind)];
  yield ["openai, beta", () => beta(given)];
  yield ["openai, reconnect", () => reconnects(given)];
}

class Client {
  constructor({ secure }, kind, { session = "", ...options } = {}) {
    const baseURL = `${secure}/v1${session && `?session_id=${session}`}`;
    this.events = [];
    this.read = 0;
    this.socket = opened[kind](new OpenAI({ apiKey: "anything", baseURL }), options);
    this.socket.on("event", (event) => {
      this.events.push(event);
      this.news?.();
    });
    this.socket.on("error", (error) => {
      if (error.error) return; // the event "error", which came before
      this.broken = error;
      this.news?.();
    });
  }

  send(type, more = {}) {
    this.socket.send({ type, ...more });
  }

  // All events up to the first of this type.
  async until(type) {
    const began = this.read;
    const end = Date.now() + WAIT;
    for (;;) {
      while (this.read < this.events.length) {
        const event = this.events[this.read++];
        if (event.type === type) return this.events.slice(began, this.read);
        if (event.type === "error") throw new Error(JSON.stringify(event));
      }
      if (this.broken) throw this.broken;
      if (Date.now() > end) throw new Error(`no ${type} after ${this.events.slice(began).map((each) => each.type)}`);
      await new Promise((resolve) => {
        this.news = resolve;
        setTimeout(resolve, 1000);
      });
    }
  }

  async last(type) {
    return (await this.until(type)).at(-1);
  }

  write(text) {
    const content = [{ type: "input_text", text }];
    this.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    this.send("response.create");
  }

  // What the agent says to a text.
  async ask(text) {
    this.write(text);
    return words(await this.until("response.done"));
  }

  hear(...sounds) {
    for (const audio of sounds) this.send("input_audio_buffer.append", { audio });
  }
}

const DELTAS = ["response.output_audio_transcript.delta", "response.output_text.delta", "response.audio_transcript.delta"];

function words(events) {
  return events.filter(({ type }) => DELTAS.includes(type)).map(({ delta }) => delta).join("");
}

async function talk(given, kind) {
  const { speech, silence } = given;
  const client = new Client(given, kind);
  const { session } = await client.last("session.created");
  const told = { session: session.id };
  client.send("session.update", { session: { type: "realtime", tools: [PAINT], instructions: "Be brief." } });
  told.tools = (await client.last("session.updated")).session.tools.map(({ name }) => name);

  client.write("hello");
  const events = await client.until("response.done");
  told.text = words(events);
  told.order = events.map(({ type }) => type).filter((type, place, all) => all.indexOf(type) === place);

  client.hear(speech, silence);
  told.voice = words(await client.until("response.done"));

  told.agentsTool = await client.ask("clock");
  client.write("paint");
  const { item } = (await client.until("response.done")).find(({ type }) => type === "response.output_item.done");
  told.call = [item.name, item.arguments];
  const output = { type: "function_call_output", call_id: item.call_id, output: "dry" };
  client.send("conversation.item.create", { item: output });
  client.send("response.create");
  told.clientsTool = words(await client.until("response.done"));

  client.write("count");
  const { item_id } = await client.last("response.output_audio.delta");
  client.hear(speech);
  const { response } = await client.last("response.done");
  told.cut = [response.status, response.status_details.reason];
  client.send("conversation.item.truncate", { item_id, content_index: 0, audio_end_ms: 100 });
  await client.until("conversation.item.truncated");
  client.hear(silence);
  told.after = words(await client.until("response.done"));
  client.socket.close();

  const again = new Client(given, kind, { session: session.id });
  told.again = (await again.last("session.created")).session.id;
  again.write("bye");
  const items = (await again.until("response.done")).filter(({ type }) => type === "conversation.item.done");
  told.history = items.map(({ item }) => {
    const [part] = item.content ?? [];
    return [item.role ?? item.type, part?.text ?? part?.transcript ?? item.name ?? item.output];
  });
  again.socket.close();
  return told;
}

async function beta(given) {
  const client = new Client(given, "ws", { options: { headers: { "OpenAI-Beta": "realtime=v1" } } });
  await client.until("session.created");
  client.write("hello");
  const events = await client.until("response.done");
  client.socket.close();
  return { text: words(events), types: [...new Set(events.map(({ type }) => type))] };
}

// The SDK's own recovery: the connection breaks in mid answer, and the address names the conversation.
async function reconnects(given) {
  const client = new Client(given, "ws", { session: "unbroken", reconnect: true, reconnectInitialDelay: 10 });
  await client.until("session.created");
  client.write("count");
  await client.until("response.output_audio.delta");
  const back = new Promise((resolve) => client.socket.on("reconnected", resolve));
  client.socket.socket.terminate();
  await back;
  client.socket.flushPending();
  const { session } = await client.last("session.created");
  const { item } = (await client.until("conversation.item.done")).at(-1);
  await client.until("response.created"); // the answer goes on
  client.send("response.cancel");
  const { response } = await client.last("response.done");
  const said = await client.ask("hello");
  client.socket.close();
  return { session: session.id, asked: item.content[0].text, answer: response.status, said };
}
