"""A sound server: its microphone hears what a test plays, and its loudspeaker is recorded."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from support.browser import RATE, until
from support.process import process
from support.server import need

PLAYED = 24_000
"""Hz of a recording."""

QUIET = 100
"""What is below is silence."""


class Pulse:
    """A PulseAudio that runs.

    Attributes:
        environment: what a program needs to find it.
    """

    def __init__(self, address: str) -> None:
        self.environment = {"PULSE_SERVER": address}

    async def hears(self, *sounds: bytes) -> None:
        """The microphone hears this, and nothing else; returns when it has."""
        given = [f"--rate={RATE}", "--channels=1", "--format=s16le", "--raw", "--latency-msec=50"]
        player = await asyncio.create_subprocess_exec(
            *("pacat", "--playback", "--device=room", *given),
            env={"PATH": os.environ["PATH"], **self.environment},
            stdin=asyncio.subprocess.PIPE,
        )
        await player.communicate(b"".join(sounds))
        assert player.returncode == 0

    @asynccontextmanager
    async def echo(self) -> AsyncIterator[None]:
        """The microphone hears the loudspeaker, 60 ms later."""
        way = ("module-loopback", "source=loudspeaker.monitor", "sink=room", "latency_msec=60")
        module = await self._control("load-module", *way)
        try:
            yield
        finally:
            await self._control("unload-module", module)

    @asynccontextmanager
    async def headset(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """There is another microphone, which new recordings use; returns what pulls it out."""
        what = ("source_name=headset", "master=room.monitor", "source_properties=device.description=Headset")
        modules = [await self._control("load-module", "module-remap-source", *what)]
        await self._control("set-default-source", "headset")

        async def pull_out() -> None:
            await self._control("unload-module", modules.pop())

        try:
            yield pull_out
        finally:
            if modules:
                await pull_out()

    async def _control(self, *command: str) -> str:
        controller = await asyncio.create_subprocess_exec(
            *("pactl", *command),
            env={"PATH": os.environ["PATH"], **self.environment},
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await controller.communicate()
        assert controller.returncode == 0
        return answer.decode().strip()

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[Recording]:
        """What the loudspeaker plays from now on."""
        given = [f"--rate={PLAYED}", "--channels=1", "--format=s16le", "--raw", "--latency-msec=50"]
        recorder = await asyncio.create_subprocess_exec(
            *("pacat", "--record", "--device=loudspeaker.monitor", *given),
            env={"PATH": os.environ["PATH"], **self.environment},
            stdout=asyncio.subprocess.PIPE,
        )
        recording = Recording(recorder)
        try:
            await until(lambda: asyncio.sleep(0, len(recording.samples)), bool)
            yield recording
        finally:
            recorder.kill()
            await recording.ended()


class Recording:
    """What is played.

    Attributes:
        samples: 16-bit, mono, so far.
    """

    def __init__(self, recorder: asyncio.subprocess.Process) -> None:
        self.samples = array("h")
        self._recorder = recorder
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._recorder.stdout
        while True:
            try:
                self.samples.frombytes(await self._recorder.stdout.readexactly(960))
            except asyncio.IncompleteReadError:
                return

    async def ended(self) -> None:
        await self._recorder.wait()
        await self._reading

    def silent(self) -> float:
        """For how many seconds nothing has been heard by now."""
        last = next((n for n, value in enumerate(reversed(self.samples)) if abs(value) >= QUIET), 0)
        return last / PLAYED

    def sounds(self, pause: float = 0.01) -> list[float]:
        """The lengths of what was to be heard, in seconds, between two pauses of at least so many seconds."""
        found: list[float] = []
        begin = end = None
        for place, value in enumerate(self.samples):
            if abs(value) < QUIET:
                continue
            if begin is None or end is None:
                begin = place
            elif place - end > pause * PLAYED:
                found.append((end - begin) / PLAYED)
                begin = place
            end = place
        if begin is not None and end is not None:
            found.append((end - begin) / PLAYED)
        return found


@asynccontextmanager
async def pulse(folder: Path, *, has_loudspeaker: bool = True) -> AsyncIterator[Pulse]:
    """Starts it without a sound card. Where it has no loudspeaker, it has a microphone that hears nothing."""
    program = need("pulseaudio", "pulseaudio")
    need("pacat", "pulseaudio-utils")
    socket = folder / "socket"
    modules = [
        "module-null-sink sink_name=loudspeaker rate=48000",
        "module-null-sink sink_name=room rate=48000",
        "module-remap-source source_name=microphone master=room.monitor",
    ]
    if not has_loudspeaker:
        modules = ["module-null-source source_name=microphone"]
    modules.append(f"module-native-protocol-unix auth-anonymous=1 socket={socket}")
    command = [
        *(program, "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"),
        *(word for module in modules for word in ("--load", module)),
    ]
    home = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    async with process(command, folder, {"PATH": os.environ["PATH"], **home}) as server:
        await until(lambda: asyncio.sleep(0, socket.is_socket() or not server.is_running), bool, timeout=60)
        assert server.is_running, server.log
        yield Pulse(f"unix:{socket}")
