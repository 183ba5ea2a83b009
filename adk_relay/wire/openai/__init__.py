"""The events of OpenAI's Realtime API, `WS /v1/realtime`: a dialect with a state for each socket."""
