"""The telephone: Twilio's Media Streams, `WS /twilio`, and the answer to a call, `POST /twilio/voice`."""


class NotInstalledError(Exception):
    """The telephone needs the packages of the extra `telephony`."""

    def __init__(self) -> None:
        super().__init__("The telephone needs more packages: pip install 'adk-relay[telephony]'.")
