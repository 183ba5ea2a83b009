"""Sockets and HTTP: frames become commands, and messages become frames. Imports `core`, and never `adk`."""
