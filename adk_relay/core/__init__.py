"""Conversations in plain Python: no ASGI, no ADK, and no import from other folders of this project."""
