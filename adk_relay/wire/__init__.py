"""The socket side: ASGI events to commands, messages to frames. Imports `core`, and never `adk`."""
