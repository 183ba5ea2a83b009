"""Sockets and HTTP: ASGI events become commands, messages become frames. Imports `core`, never `adk`."""
