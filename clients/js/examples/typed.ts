// How relay-live is typed: a test compiles this file with `strict`, and what is wrong on purpose must be an error.

import { connect, sendMessageStream, type Conversation, type Line, type Message, type MessageOf, type Tool } from "relay-live";

const conversation: Conversation = connect({ url: "https://relay.example/", user: "ann", audio: true, token: () => "a.b.c" });

conversation.on("transcript", ({ text, final }) => console.log(text.trim(), final));
conversation.on("sound", ({ samples }) => console.log(samples.length / 24_000, "seconds"));
conversation.on("confirmed", ({ id }) => console.log(id.length));
conversation.on("turn_end", ({ usage }) => console.log((usage?.total_tokens ?? 0) + 1));
conversation.on("*", (message: Message) => console.log(message.type));
conversation.on("showing", ({ what, why }) => console.log(what === "camera", why.length));
conversation.choose({ microphone: "", mode: "push_to_talk" });
// @ts-expect-error: there is no such mode
conversation.choose({ mode: "loud" });
// @ts-expect-error: there is no such message
conversation.on("nonsense", () => {});
// @ts-expect-error: a text has no samples
conversation.on("text", ({ samples }) => console.log(samples));
// @ts-expect-error: `url` is missing
connect({ user: "ann" });

export async function run(): Promise<string> {
  const id: string = conversation.say("Hello", { stateDelta: { name: "Ann", age: 7, city: null } });
  conversation.say("What is it?", { pictures: [{ mime_type: "image/jpeg", data: new Uint8Array(3) }] });
  // @ts-expect-error: it must be flat
  conversation.say("Hello", { stateDelta: { user: { name: "Ann" } } });
  for await (const message of conversation) {
    switch (message.type) {
      case "text":
        console.log(message.text.toUpperCase());
        break;
      case "tool_start":
        console.log(message.tool_name, message.arguments);
        break;
      case "state":
        if (message.name === "ended") throw new Error(message.reason ?? "");
    }
  }
  // @ts-expect-error: a state is never changed
  conversation.state.messages.push(conversation.state.messages[0]);
  return id;
}

export const again = ({ id, text }: Line): string => (conversation.rewind(id) ? conversation.say(text) : "");
conversation.on("rewound", ({ messages }) => console.log(messages + 1));
export const choose = ({ state }: Conversation): boolean =>
  conversation.configure({ voice: state.voices[0], language: "" });
export const shape = ({ state }: Conversation): boolean =>
  conversation.configure({ tools: [...state.clientTools, { name: "paint" }], instructions: "Be brief.", pushToTalk: true });
export const running = (line: Line): Tool[] => line.tools.filter(({ result }) => result === null);
export const length = (message: MessageOf<"text">): number => message.text.length;

const stream = sendMessageStream(
  { session_id: "kitchen", message: "What time is it in Tokyo?", state_delta: { name: "Ann" } },
  {
    url: "https://relay.example/",
    onToolStart: ({ tool_name, result }) => console.log(tool_name, result === null),
    onToolComplete: ({ tool_id, result }) => console.log(tool_id, result),
    onResponse: ({ content, tool_calls }) => console.log(content.length, tool_calls.length),
    onDone: () => console.log("done"),
    onError: (error) => console.error(error.message),
  },
);
stream.close();
