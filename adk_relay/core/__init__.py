"""Conversations in plain Python: no ASGI, no ADK, and nothing of this project but this folder."""
