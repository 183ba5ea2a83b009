"""A relay between WebSocket clients and a Google ADK live agent."""
