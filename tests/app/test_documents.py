"""The documents agree with the code and with each other, and their examples work."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from adk_relay.client.connection import comes_back
from adk_relay.core.messages import Message
from adk_relay.wire.api import MAX_BODY_BYTES
from adk_relay.wire.dialects import MAX_TEXT_BYTES, MAX_TOOL_BYTES
from adk_relay.wire.dialects.live import MAX_AUDIO_BYTES, MAX_IMAGE_BYTES
from support.client import Json, client
from support.frames import DIALECTS, SAMPLES, by_kind, emitted, kind, taken
from support.gemini import GeminiLive
from support.server import ROOT, serving

API: Json = json.loads((ROOT / "static" / "openapi.json").read_text())
WIRE = (ROOT / "docs" / "wire.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level, _, _ = title.partition(" ")
    _, found, rest = text.partition(f"\n{title}\n")
    assert found, title
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    table = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    heads = {match[1] for match in re.finditer(r"^\| (.*) \|\n\|(?:---\|)+$", text, re.MULTILINE)}
    return [row.split(" | ") for row in table if row not in heads]


def code(cell: str) -> str:
    """What a cell has between backticks."""
    return cell.strip("`")


def frames(dialect: str, whose: str) -> list[Json]:
    """The frames that docs/wire.md shows."""
    told = section(section(WIRE, f"## The {dialect} dialect"), f"### {whose}")
    return [json.loads(code(cell)) for cell, _ in rows(told) if cell.startswith("`")]


# ---- docs/wire.md ----------------------------------------------------------------------------


def test_the_samples_are_all_messages() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(Message))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_frames_of_the_server(dialect: str) -> None:
    assert by_kind(frames(dialect, "Server to client")) == emitted(dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_frames_of_a_client(dialect: str) -> None:
    told = frames(dialect, "Client to server")
    for frame in told:
        DIALECTS[dialect].decode(json.dumps(frame))
    assert {kind(frame) for frame in told} == taken(dialect) - {"image/png"}
    assert "image/png" in WIRE


def sources(*names: str) -> str:
    return "\n".join(path.read_text() for name in names for path in sorted((ROOT / "adk_relay").glob(name)))


def test_the_error_codes() -> None:
    raised = re.findall(
        r'\b(?:(?:BadFrame)?Error|_refuse)\(\s*"([a-z_]+)"', sources("core/*.py", "adk/*.py", "wire/**/*.py")
    )
    told = {code(cell) for cell, _ in rows(section(WIRE, "## Error codes"))}
    assert told == set(raised) - {"too_slow"}  # which only the turn dialect has, where errors have no code


def test_the_close_codes() -> None:
    text = (ROOT / "relay.py").read_text() + sources("wire/**/*.py")
    sent = set(re.findall(r"(?<![\w.])(10\d\d|44\d\d)(?![\w.])", text)) - {"1024", "1005"}
    told = {cell: action for cell, _, action in rows(section(WIRE, "## Close codes"))}
    assert sent <= told.keys()
    # uvicorn's own, and those for what stands in front of relay
    assert told.keys() - sent <= {"1007", "1009", "4401", "4403"}
    for number, action in told.items():
        if number != "1000":
            assert comes_back(int(number)) == (action == "yes"), number


def test_the_limits() -> None:
    told = [int(cell) for _, cell in rows(section(WIRE, "## For all dialects")) if cell.isdigit()]
    assert told == [MAX_TEXT_BYTES, MAX_AUDIO_BYTES, MAX_IMAGE_BYTES, MAX_TOOL_BYTES, MAX_BODY_BYTES]


def test_the_requests() -> None:
    told = re.findall(r"`(GET|POST|DELETE) ([^`]+)`", section(WIRE, "## HTTP"))
    assert sorted(told) == sorted(
        (method.upper(), path)
        for path, methods in API["paths"].items()
        for method in methods
        if method != "parameters"
    )


# ---- README.md -------------------------------------------------------------------------------


def test_the_readme_fits_on_three_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_the_drawing_is_told_once() -> None:
    drawing = next(block for block in re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
    assert drawing in (ROOT / "docs" / "architecture.md").read_text()


async def test_the_examples_of_the_readme(
    tmp_path: Path, gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent and the application around relay, as they stand there: a client talks with them."""
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        file = tmp_path / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        app: Any = importlib.import_module("main").app
        async with serving(app) as port, client(port, path="/talk") as alice:
            assert await alice.ask("hello") == "You said: hello."
        await gemini.wait_for(lambda: not gemini.open_connections)  # its lifespan has ended the run
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("main", "my_pkg"):
                del sys.modules[name]


# ---- all of them -----------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link
