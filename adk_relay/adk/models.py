"""Models: which one an agent uses, and how a run is configured."""

from __future__ import annotations

import os
import re
from urllib.request import getproxies

from google.adk.agents.run_config import RunConfig, ToolThreadPoolConfig
from google.adk.models import BaseLlm, Gemini
from google.adk.telemetry import ContentCapturingMode, TelemetryConfig
from google.genai import types
from opentelemetry import trace

from adk_relay.adk.credentials import api_key, missing_credentials, on_vertex, real
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.core.voice import Voice


def run_config(voice: str | None = None, language: str | None = None) -> RunConfig:
    """The default run configuration.

    Every model is asked for sound and for both transcriptions: all current live models answer in sound,
    and a client in text mode gets the transcription. The context window is compressed, because otherwise
    a conversation would be cut off after fifteen minutes.

    Args:
        voice: a prebuilt voice's name; None: the model's own choice.
        language: a BCP-47 code; None: the model's own choice.
    """
    speech = None
    if voice or language:
        speech = types.SpeechConfig(
            language_code=language,
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=voice))
            if voice
            else None,
        )
    return RunConfig(
        response_modalities=[types.Modality.AUDIO],
        speech_config=speech,
        context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
        session_resumption=types.SessionResumptionConfig(),
        # Otherwise a synchronous tool that blocks would stop all conversations of the process.
        tool_thread_pool_config=ToolThreadPoolConfig(),
    )


def voice_of(config: RunConfig) -> Voice:
    """The voice and the language in a run configuration."""
    speech = config.speech_config
    if not isinstance(speech, types.SpeechConfig):
        return Voice(speech or "")
    prebuilt = speech.voice_config and speech.voice_config.prebuilt_voice_config
    return Voice((prebuilt and prebuilt.voice_name) or "", speech.language_code or "")


def with_voice(config: RunConfig, voice: Voice) -> RunConfig:
    """A copy of a run configuration with another voice and language."""
    found = config.speech_config
    speech = found if isinstance(found, types.SpeechConfig) else types.SpeechConfig()
    prebuilt = types.PrebuiltVoiceConfig(voice_name=voice.name)
    change = {
        "language_code": voice.language or None,
        "voice_config": types.VoiceConfig(prebuilt_voice_config=prebuilt)
        if voice.name
        else speech.voice_config,
    }
    return config.model_copy(update={"speech_config": speech.model_copy(update=change)})


def telemetry() -> TelemetryConfig:
    """What ADK is to record of a run, by the environment. If nobody records spans, they get no content.

    Without this, ADK would read the environment several times in each run, and write a conversation's whole
    history as JSON into a span that nobody sees.
    """
    by_environment = TelemetryConfig()
    in_logs = by_environment.resolved_content_capturing_mode is not ContentCapturingMode.NO_CONTENT
    if in_logs or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return by_environment
    return TelemetryConfig(capture_message_content=ContentCapturingMode.NO_CONTENT)


def gemini_major(model: str) -> int | None:
    """The generation in a Gemini model's name ("gemini-2.5-flash" → 2), None for any other model."""
    found = re.search(r"(?:^|/)gemini-(?:live-)?(\d+)", model)
    return int(found[1]) if found else None


_DEFAULT_MODEL = "gemini-3.8-live"


def model_from_env() -> BaseLlm:
    """The model that the environment asks for; without credentials, the rehearsal model."""
    name = os.environ.get("RELAY_MODEL", "").strip() or _DEFAULT_MODEL
    if name == "rehearsal" or missing_credentials():
        return Rehearsal()
    if on_vertex() and real("GOOGLE_CLOUD_PROJECT") and real("GOOGLE_CLOUD_LOCATION"):
        return Gemini(model=name)
    # Without this, google-genai would prefer a placeholder in GOOGLE_API_KEY to a key in GEMINI_API_KEY,
    # and a placeholder in GOOGLE_CLOUD_PROJECT to both.
    options = types.HttpOptions()
    if not getproxies():
        # For each connection, websockets would look through the whole environment for a proxy.
        options.async_client_args = {"proxy": None}
    return Gemini(model=name, client_kwargs={"api_key": api_key(), "http_options": options})
