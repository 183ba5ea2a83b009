// The types of what a conversation tells and holds. They are comments: nothing is run.

/**
 * @typedef {object} ConnectionState
 * @property {"connecting" | "connected" | "modelling" | "waiting" | "blocked" | "asleep" | "ended" | "closed"} name
 *   `modelling`: connected, but the server is restoring its own connection to the model; `waiting` for the next try;
 *   `blocked`: no WebSocket gets through, so that texts go over HTTP, to a separate conversation; `asleep`: closed
 *   because nobody said anything, the next input opens it; `ended`: it would be refused again; `closed` by `close()`
 * @property {boolean} [again] connecting after a loss
 * @property {number} [delay] waiting for so many milliseconds
 * @property {string} [reason] why it has ended
 */

/**
 * A call of a tool.
 *
 * @typedef {object} Tool
 * @property {string} tool_id
 * @property {string} tool_name
 * @property {any} arguments
 * @property {any} result null while it runs
 * @property {boolean} [truncated] the arguments, or the result, are the beginning of longer ones
 * @property {number} [at] how many characters of the answer were there when it was called
 * @property {any} [interim] what a tool that waits for a user has returned meanwhile
 */

/**
 * What an answer is based on.
 *
 * @typedef {object} Grounding
 * @property {{ title: string, url: string }[]} [sources]
 * @property {string[]} [searches]
 * @property {string} [suggestions]
 */

/**
 * What a text sets in the session's state: flat, at most 16 KiB.
 *
 * @typedef {Record<string, string | number | boolean | null>} StateDelta
 */

/**
 * @typedef {object} Usage
 * @property {number} [input_tokens]
 * @property {number} [output_tokens]
 * @property {number} [thought_tokens]
 * @property {number} [total_tokens]
 */

/**
 * One message of a history, as the server tells it.
 *
 * @typedef {object} HistoryLine
 * @property {"user" | "agent"} role
 * @property {string} text
 * @property {string} [id]
 * @property {string} [name]
 * @property {boolean} [open]
 * @property {boolean} [mine]
 * @property {string} [timestamp] ISO 8601
 * @property {boolean} [interrupted]
 * @property {boolean} [unanswered] no answer will come to it any more
 * @property {boolean} [cut] the server has lost this answer: it is what was read of it here
 * @property {(Tool & { pending?: boolean })[]} [tools] pending: it waits for a user
 */

/**
 * A picture that is sent with a text. What else it has is kept for the view.
 *
 * @typedef {object} Picture
 * @property {"image/jpeg" | "image/png"} mime_type
 * @property {Uint8Array} data at most 4 MiB (`limits.picture_bytes` of `hello`). Gemini sees pictures in tiles of 768
 *   pixels: more than 1,536 on the longer side tells it little.
 */

/**
 * A text, an utterance or an answer, as it is to be shown.
 *
 * @typedef {object} Line
 * @property {string} key identifies it among all lines that are shown
 * @property {"user" | "agent"} role
 * @property {string} text
 * @property {string} id of a user's text; empty: it has none
 * @property {string} name who wrote or said it, if it is told
 * @property {boolean} mine
 * @property {"" | "waiting" | "sent" | "refused"} status of a text that was written here: it waits for a connection; it
 *   was sent, and is not stored yet; it is not answered
 * @property {boolean} open it is not complete
 * @property {boolean} spoken by a user
 * @property {string} [speaker] the connection id of who has spoken it, if that was another user
 * @property {readonly Picture[]} [pictures] that were sent with a text, by this client
 * @property {boolean} [unpictured] they could not be sent
 * @property {boolean} interrupted
 * @property {boolean} unanswered no answer will come to it any more: the server was stopped or killed before
 * @property {boolean} cut the server has lost this answer: it is what was read of it here
 * @property {string} time when it was written or said, or began (ISO 8601); empty: that is not known
 * @property {boolean} beside it is in the separate conversation over HTTP
 * @property {readonly Tool[]} tools that an answer has called
 * @property {Grounding} [grounding]
 * @property {Usage} [usage]
 */

/**
 * When the microphone is sent: always; only while the user holds a button (see `talk()`: if nobody else is there, a pause
 * does not end the turn then); not while the agent is heard.
 * `auto`: always, but not while the agent is heard where the microphone hears it.
 *
 * @typedef {"auto" | "open" | "push_to_talk" | "half_duplex"} Mode
 */

/**
 * What the user has chosen for calls. Devices have the ids of `listDevices()`; empty, or gone: the default one.
 *
 * @typedef {object} Choices
 * @property {string} [microphone]
 * @property {string} [loudspeaker] not in all browsers: see `canChooseLoudspeaker`
 * @property {string} [camera]
 * @property {Mode} [mode]
 */

/**
 * All that is to be shown. It is never changed: what is new makes another state, which shares what is the same.
 *
 * @typedef {object} State
 * @property {ConnectionState} connection
 * @property {string} sessionId the id of the conversation, when the server has told it
 * @property {string} title what its users have named it; empty: they have not
 * @property {string} model
 * @property {boolean} rehearsal the offline agent answers
 * @property {string} name what the others are told of this client
 * @property {"" | "listen" | "write" | "manage"} role empty: it was not invited
 * @property {Mode} mode the user's choice
 * @property {boolean} mustPushToTalk all in this conversation need it: the operator has set it, `configure()`, or the mode
 *   of one of them
 * @property {boolean} pushToTalk the microphone is sent only between `talk(true)` and `talk(false)`
 * @property {boolean} halfDuplex the microphone is not sent while the agent is heard
 * @property {boolean} echo the microphone of this call hears its loudspeaker
 * @property {readonly string[]} voices those that can be chosen with `configure()`; empty: there is no choice
 * @property {string} voice the agent's; empty: the model chooses, or there is no choice
 * @property {readonly string[]} languages those that can be chosen
 * @property {string} language
 * @property {string} instructions those that clients have set, besides the agent's own
 * @property {readonly ClientTool[]} clientTools the tools that clients have, besides the agent's own
 * @property {number | null} temperature null: the operator's own
 * @property {readonly Line[]} messages
 * @property {string} older names the place before the first message, for `askOlder()`; empty: there are no older ones
 * @property {boolean} expecting an answer is to come
 * @property {boolean} answering an answer is being given
 * @property {readonly Tool[]} waiting tool calls that wait for a user
 * @property {number} connections in the conversation, this one included
 * @property {readonly string[]} typing the connection ids of others who are typing
 * @property {Readonly<Record<string, string>>} names of others, by their connection ids
 * @property {"off" | "asking" | "on" | "elsewhere"} call `asking` until the microphone gives sound; `elsewhere`: the
 *   call is in another window of this browser, and `speak()` takes it back
 * @property {"" | "camera" | "screen"} showing what the agent is shown
 * @property {boolean} beside texts go over HTTP, to a separate conversation
 * @property {{ code: string, message: string } | null} error the last one
 */

/**
 * A tool that clients have: a call of it waits until one of them answers it (`state.waiting`, `answerTool()`).
 *
 * @typedef {object} ClientTool
 * @property {string} name
 * @property {string} [description]
 * @property {Record<string, any>} [parameters] the JSON schema of its arguments, an object
 */

/**
 * @typedef {{ instructions?: string, tools?: ClientTool[], push_to_talk?: boolean, temperature?: number }} ShapeFields what
 *   clients have set of how the agent answers
 * @typedef {{ type: "state" } & ConnectionState} StateMessage
 * @typedef {{ type: "hello", session_id: string, user_id: string, connection_id: string, connections: number,
 *   model: string, rehearsal: boolean, is_audio: boolean, epoch: string, seq: number,
 *   name?: string, role?: "listen" | "write" | "manage", names?: Record<string, string>,
 *   title?: string, limits?: Record<string, number>, voices?: string[], voice?: string, languages?: string[], language?: string
 *   } & ShapeFields} HelloMessage
 * @typedef {{ type: "configured", voice: string, language: string } & ShapeFields} ConfiguredMessage how the agent answers
 *   from its next turn on, for all in the conversation
 * @typedef {{ type: "history", lines: HistoryLine[], ids: string[], isAnother: boolean, older: string }} HistoryMessage
 *   the conversation, which replaces all that is shown; the texts with these ids are not in it yet; isAnother: the server
 *   has begun a new epoch
 * @typedef {{ type: "older", lines: HistoryLine[], older: string }} OlderMessage what `askOlder()` has asked for
 * @typedef {{ type: "cleared", how: "cleared" | "deleted", ids: string[] }} ClearedMessage
 * @typedef {{ type: "renamed", title: string }} RenamedMessage the conversation has another title; empty: none any more
 * @typedef {{ type: "written", id: string, text: string, pictures: readonly Picture[], waiting: boolean, beside: boolean
 *   }} WrittenMessage by `say()`
 * @typedef {{ type: "sent" | "unsent" | "placed" | "confirmed" | "refused" | "cancelled" | "unpictured", id: string
 *   }} FateMessage of a text: it was sent; the connection was lost before it was confirmed; it comes after all messages
 *   so far; the server has it; it is not answered; it was taken back; it goes without its pictures, over HTTP
 * @typedef {{ type: "rewound", id?: string, messages: number }} RewoundMessage what a user has written or said last is
 *   taken back, with all that came after it: the last `messages` whole messages; the calls that still wait are told again
 * @typedef {{ type: "message", role: "user", text: string, id?: string, connection_id: string | null, name?: string,
 *   mine: boolean }} TextOfUserMessage
 * @typedef {{ type: "transcript", role: "user", text: string, final: boolean, connection_id: string | null,
 *   name?: string, mine: boolean }} TranscriptMessage the whole utterance so far
 * @typedef {{ type: "text", text: string, isTranscript: boolean }} TextMessage the next chunk of an answer
 * @typedef {{ type: "sound", samples: Int16Array }} SoundMessage 24 kHz, mono
 * @typedef {{ type: "tool_start", tool_id: string, tool_name: string, arguments: any, pending?: boolean, interim?: any,
 *   truncated?: boolean }} ToolStartMessage
 * @typedef {{ type: "tool_complete", tool_id: string, tool_name: string, result: any, truncated?: boolean
 *   }} ToolCompleteMessage
 * @typedef {{ type: "turn_end", interrupted: boolean, wasPlaying: boolean, usage?: Usage, grounding?: Grounding,
 *   seq?: number }} TurnEndMessage wasPlaying: the agent was still to be heard; seq: for `heard()`
 * @typedef {{ type: "heard", text: string }} HeardMessage of the last answer that has ended, the users have heard this only
 * @typedef {{ type: "presence", joined: string[], left: string[], connections: number, names?: Record<string, string>
 *   }} PresenceMessage
 * @typedef {{ type: "typing", connection_id: string, name?: string, typing: boolean, mine: boolean }} TypingMessage
 * @typedef {{ type: "dropped", direction: "up" | "down", audio_ms: number }} DroppedMessage
 * @typedef {{ type: "error", code?: string, message: string, id?: string, tool_id?: string, retry_after?: number
 *   }} ErrorMessage
 * @typedef {{ type: "token_expiring", expires_in: number }} TokenExpiringMessage
 * @typedef {{ type: "going_away", after: number }} GoingAwayMessage
 * @typedef {{ type: "call", state: "asking" | "on" | "elsewhere" | "off", why: string }} CallMessage why, for people: of
 *   its end, or, while it is on, of another microphone
 * @typedef {{ type: "showing", what: "" | "camera" | "screen", why: string }} ShowingMessage why it ended or failed, for
 *   people; empty: the user has ended it
 * @typedef {{ type: "echo", heard: boolean }} EchoMessage whether the microphone hears the loudspeaker was found out, in
 *   the first seconds in which the agent was heard
 * @typedef {{ type: "choices", choices: Choices }} ChoicesMessage
 * @typedef {{ type: "slow" }} SlowMessage the network is slower than speech; once a call
 * @typedef {{ type: "beside", active: boolean, used: boolean }} BesideMessage texts go to a separate conversation from
 *   now on, or do not any more; used: they did since
 * @typedef {{ type: "frame", direction: "up" | "down", text: string, bytes: number, at: number }} FrameMessage with `debug`:
 *   what was sent or received; text: its JSON, without the pictures and sound in it; empty: it is binary, and sound
 * @typedef {{ type: "closed", code: number, reason: string, at: number }} ClosedMessage with `debug`: a socket was lost, or
 *   the server has closed it
 */

/**
 * @typedef {StateMessage | HelloMessage | ConfiguredMessage | HistoryMessage | OlderMessage | ClearedMessage
 *   | RenamedMessage | WrittenMessage | FateMessage | RewoundMessage | TextOfUserMessage | TranscriptMessage
 *   | TextMessage | SoundMessage | ToolStartMessage | ToolCompleteMessage | TurnEndMessage | HeardMessage
 *   | PresenceMessage | TypingMessage | DroppedMessage | ErrorMessage | TokenExpiringMessage
 *   | GoingAwayMessage | CallMessage | ShowingMessage | EchoMessage | ChoicesMessage | SlowMessage | BesideMessage
 *   | FrameMessage | ClosedMessage} Message
 */

/**
 * The messages with one `type`.
 *
 * @template {Message["type"]} T
 * @typedef {Extract<Message, { type: T }> extends never ? FateMessage : Extract<Message, { type: T }>} MessageOf
 */

/**
 * @typedef {object} ConnectOptions
 * @property {string | URL} url where relay is: `https://example.com/`, with its prefix if it has one
 * @property {string} [user] the user's id, 1 to 128 of `A-Z a-z 0-9 . _ ~ -`; left out: a random one. With a token the
 *   server knows the user from it.
 * @property {string} [session] names one of the user's conversations; left out: the user's default one
 * @property {string} [name] what the others are told, if the token says nothing
 * @property {boolean} [audio] get the agent's sound without a call, as `sound` messages; left out: only while `speak()`
 * @property {string | (() => string)} [token] if the server wants one
 * @property {string} [fallbackSession] the id of the conversation over HTTP, where it cannot be the same one
 * @property {string | URL} [worklets] the folder with `player.worklet.js`, `recorder.worklet.js` and `resampler.js`, if
 *   a bundler has moved this module: relay serves them at `clients/js/src/`
 * @property {Choices} [choices] the same as `choose()`
 * @property {any} [WebSocket] a WebSocket class, for Node before 22 (the package `ws` has one)
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Pick<Storage, "getItem" | "setItem" | "removeItem">} [storage] keeps what was read of answers that the server
 *   has lost over a reload: `sessionStorage`
 * @property {Pick<Storage, "getItem" | "setItem" | "removeItem">} [lasting] keeps in which conversations this user has chosen
 *   push to talk, so that it can be switched off after a reload: `localStorage`
 * @property {boolean} [debug] write all frames to the console, and tell `frame` and `closed` messages
 */

export {};
