// A conversation in React: writing, speaking, tools.

import { StrictMode, useState, type FormEvent } from "react";
import { createRoot } from "react-dom/client";
import type { Line } from "relay-live";
import { useRelay } from "relay-live/react";

function Message({ line }: { line: Line }) {
  return (
    <li className={`message ${line.role} ${line.open ? "open" : ""}`}>
      {line.tools.map((tool) => (
        <span key={tool.tool_id} className="tool">
          {tool.tool_name}: {tool.result === null ? "running" : "done"}
        </span>
      ))}
      <span className="text">{line.text}</span>
      {line.status === "waiting" && <small>Waiting to be sent</small>}
      {line.interrupted && <small>Interrupted</small>}
    </li>
  );
}

function Chat({ url, user }: { url: string; user: string }) {
  // The worklets cannot be bundled: relay has them.
  const { state, conversation } = useRelay({ url, user, worklets: `${url}clients/js/src/` });
  const [draft, setDraft] = useState("");

  function send(event: FormEvent) {
    event.preventDefault();
    if (draft.trim()) conversation().say(draft.trim());
    setDraft("");
  }

  return (
    <main>
      <p id="state" data-state={state.connection.name}>
        {state.connection.name}
      </p>
      <ul>
        {state.messages.map((line) => (
          <Message key={line.key} line={line} />
        ))}
        {state.expecting && <li className="expected">…</li>}
      </ul>
      <form onSubmit={send}>
        <label>
          Message
          <input value={draft} onChange={({ target }) => setDraft(target.value)} />
        </label>
      </form>
      {state.answering && <button onClick={() => conversation().interrupt()}>Stop</button>}
      {state.call === "off" ? (
        <button onClick={() => void conversation().speak()}>Speak</button>
      ) : (
        <button onClick={() => conversation().hangUp()}>Hang up</button>
      )}
    </main>
  );
}

const user = new URLSearchParams(location.search).get("user") ?? "ann";
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Chat url={new URL("/", location.href).href} user={user} />
  </StrictMode>,
);
