"""The ADK side: conversations with a live agent. Imports `core`, and never `wire`."""
