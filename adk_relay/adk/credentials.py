"""The credentials for Gemini that the environment holds."""

from __future__ import annotations

import os
import re

# No real key or project begins with one of these words and a separator, or is one of them: this must match
# placeholders only, and never somebody's credentials.
_PLACEHOLDER = re.compile(
    r"""
    [\W_x]*                                                     # nothing, "...", "xxx"
    | <.*> | \[.*\] | \{.*\} | \$.*                             # <key>, ${KEY}
    | (your|paste|insert|enter|add|put|replace|change)[\W_].*   # your-api-key, PASTE_YOUR_…
    | ((my|the|an?|google|gemini)[\W_]?)*api[\W_]?key           # api_key, GOOGLE_API_KEY
    | key | todo | none | null | secret | placeholder | changeme
    """,
    re.IGNORECASE | re.VERBOSE,
)


def missing_credentials() -> str | None:
    """What to set in the environment to talk to Gemini, in one sentence; None if it is all there.

    A placeholder counts as nothing. Nothing is sent anywhere, so a key may still be refused.
    """
    if not on_vertex():
        if api_key():
            return None
        for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
            if os.environ.get(name, "").strip():
                return f"{name} is a placeholder: put a key from https://aistudio.google.com/apikey there."
        return (
            "To talk to Gemini, set GOOGLE_API_KEY to a key from https://aistudio.google.com/apikey, or"
            " GOOGLE_GENAI_USE_VERTEXAI to true with GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION."
        )
    wanted = [name for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION") if not real(name)]
    if not wanted or api_key():
        return None
    return f"Vertex AI is asked for: set {' and '.join(wanted)}, or GOOGLE_API_KEY (express mode), to use it."


def on_vertex() -> bool:
    """Whether Vertex AI is asked for, as google-genai reads it: the newer name wins even if it is empty."""
    old = os.environ.get("GOOGLE_GENAI_USE_VERTEXAI", "")
    return os.environ.get("GOOGLE_GENAI_USE_ENTERPRISE", old).lower() in ("true", "1")


def api_key() -> str | None:
    return real("GOOGLE_API_KEY") or real("GEMINI_API_KEY")


def real(name: str) -> str | None:
    """The value of an environment variable, unless it is missing or a placeholder."""
    value = os.environ.get(name, "").strip().strip("\"'")
    return None if _PLACEHOLDER.fullmatch(value) else value
