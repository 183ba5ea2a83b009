"""The telephone: Twilio's Media Streams, `WS /twilio`, and the answer to a call, `POST /twilio/voice`."""

from adk_relay.wire.sound import HOW_TO_INSTALL


class NotInstalledError(Exception):
    """The telephone needs the packages of the extra `telephony`."""

    def __init__(self) -> None:
        super().__init__(f"The telephone needs more packages: {HOW_TO_INSTALL}.")
