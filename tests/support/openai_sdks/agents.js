// The package `@openai/agents`: its session for live agents over a WebSocket.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents/realtime";
import { setTracingDisabled } from "@openai/agents";

import { PAINT, WAIT } from "./common.js";

setTracingDisabled(true);

export function* agents(given) {
  yield ["agents", () => talk(given)];
  yield ["agents, manual turns", () => manual(given)];
}

class Talk {
  constructor({ plain }, session = "", config = {}) {
    const url = `${plain.replace("http", "ws")}/v1/realtime?model=agent${session && `&session_id=${session}`}`;
    this.painted = [];
    const paint = tool({
      ...PAINT,
      strict: true,
      execute: async (given) => {
        this.painted.push(given);
        return "dry";
      },
    });
    const writer = new RealtimeAgent({ name: "writer", instructions: "Be verbose." });
    const agent = new RealtimeAgent({ name: "painter", instructions: "Be brief.", tools: [paint], handoffs: [writer] });
    this.session = new RealtimeSession(agent, { config, transport: new OpenAIRealtimeWebSocket({ url }) });
    this.began = 0; // when the sound of an answer began, and how many ms of it have come
    this.ms = 0;
    this.events = [];
    this.read = 0;
    this.errors = [];
    this.cut = 0;
    this.session.on("audio", ({ data }) => {
      this.began ||= Date.now();
      this.ms += data.byteLength / 48;
    });
    this.session.on("audio_interrupted", () => this.cut++);
    this.session.on("error", (error) => this.errors.push(error));
    this.session.transport.on("*", (event) => this.events.push(event));
  }

  connect() {
    return this.session.connect({ apiKey: "anything" });
  }

  get lines() {
    return this.session.history.map((item) => {
      const [part] = item.content ?? [];
      return [item.role ?? item.type, part?.text ?? part?.transcript ?? item.output ?? null, item.status];
    });
  }

  async until(holds) {
    const end = Date.now() + WAIT;
    while (!holds()) {
      if (Date.now() > end) {
        const types = this.events.map(({ type }) => type).slice(-40);
        throw new Error(`not within ${WAIT} ms: ${holds}; ${JSON.stringify([this.lines, this.errors, types])}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  // The next event of this type, or the last one if there is none.
  async event(type, which = "next") {
    if (which === "last") return this.events.findLast((event) => event.type === type);
    const next = () => this.events.findIndex((event, place) => place >= this.read && event.type === type);
    await this.until(() => next() >= 0);
    this.read = next() + 1;
    return this.events[this.read - 1];
  }

  // Returns when so much of an answer has been played.
  async played(ms = this.ms) {
    await this.until(() => this.began && Date.now() - this.began >= ms);
    this.began = this.ms = 0;
  }

  // The last item of the history says this, and all responses are over.
  async says(words) {
    const count = (type) => this.events.filter((event) => event.type === type).length;
    await this.until(() => this.lines.at(-1)?.[1] === words && count("response.created") === count("response.done"));
    this.read = this.events.length;
  }

  hear(...sounds) {
    for (const sound of sounds) this.session.sendAudio(samples(sound));
  }
}

const samples = (sound) => Uint8Array.from(Buffer.from(sound, "base64")).buffer;

async function talk(given) {
  const { speech, silence } = given;
  const first = new Talk(given);
  await first.connect();
  const { session } = await first.event("session.updated");
  const told = {};
  first.session.sendMessage("hello");
  await first.says("You said: hello.");
  await first.played();
  first.hear(speech, silence);
  await first.says("I heard you.");
  first.session.sendMessage("clock");
  await first.says("It is noon.");
  first.session.sendMessage("paint");
  await first.says("It is dry.");
  told.painted = first.painted;
  await first.played();

  // The user speaks into an answer: the SDK truncates it where the user has heard it.
  told.uncut = first.cut;
  first.session.sendMessage("count");
  await first.event("response.output_audio.delta");
  await first.played(500);
  first.hear(speech);
  await first.event("conversation.item.retrieved");
  told.counted = first.lines.at(-1)[1] || first.lines.at(-2)[1];
  first.hear(silence);
  await first.says("Yes?");
  await first.played();

  // The user stops an answer.
  first.session.sendMessage("count");
  await first.event("response.output_audio.delta");
  await first.played(500);
  first.session.interrupt();
  told.stopped = (await first.event("response.done")).response.status_details.reason;
  await first.event("conversation.item.retrieved");

  // Another agent takes over, with tools and instructions of its own.
  first.session.sendMessage("hand over");
  await first.says("Here is the writer.");
  told.agent = first.session.currentAgent.name;
  told.tools = (await first.event("session.updated", "last")).session.tools.map(({ name }) => name);
  told.lines = first.lines;
  told.errors = first.errors;
  first.session.close();

  const second = new Talk(given, session.id);
  await second.connect();
  second.session.sendMessage("bye");
  await second.says("You said: bye.");
  told.again = second.lines;
  told.errors.push(...second.errors);
  second.session.close();
  return told;
}

// Push to talk.
async function manual(given) {
  const { speech, silence } = given;
  const one = new Talk(given, "", { audio: { input: { turnDetection: null } } });
  await one.connect();
  await one.event("session.updated");
  one.hear(speech, silence);
  one.session.sendAudio(samples(speech), { commit: true });
  one.session.transport.requestResponse();
  await one.says("I heard you.");
  const { lines, errors } = one;
  one.session.close();
  return { lines, errors };
}
