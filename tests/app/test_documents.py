"""The documents agree with the code and with each other, and their examples work."""

from __future__ import annotations

import html
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from adk_relay import __version__
from adk_relay.client.connection import comes_back
from adk_relay.core.messages import Message
from adk_relay.settings import SETTINGS
from adk_relay.wire.body import MAX_BODY_BYTES
from adk_relay.wire.dialects import MAX_TEXT_BYTES
from adk_relay.wire.dialects.fields import MAX_TOOL_BYTES
from adk_relay.wire.dialects.media import MAX_AUDIO_BYTES, MAX_IMAGE_BYTES
from support.client import Json, client
from support.gemini import GeminiLive
from support.server import ROOT, serving
from support.servers import COMMANDS
from support.wire import (
    DIALECTS,
    OTHERS_CLOSE_CODES,
    SAMPLES,
    by_kind,
    close_codes,
    emitted,
    error_codes,
    kind,
    taken,
)

API: Json = json.loads((ROOT / "static" / "openapi.json").read_text())
PAGE = (ROOT / "static" / "docs.html").read_text()
WIRE = (ROOT / "docs" / "wire.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
README = (ROOT / "README.md").read_text()
SETTINGS_TABLE = (ROOT / "docs" / "settings.md").read_text()
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
    return [re.split(r" ?\| ", row) for row in table if row not in heads]


def code(cell: str) -> str:
    """What a cell has between backticks."""
    return cell.strip("`")


def frames(dialect: str, whose: str) -> list[Json]:
    """The frames that docs/wire.md shows."""
    told = section(section(WIRE, f"## The {dialect} dialect"), f"### {whose}")
    return [json.loads(code(cell)) for cell, _ in rows(told) if cell.startswith("`")]


# ---- docs/production.md ----------------------------------------------------------------------


def test_the_commands_of_the_servers() -> None:
    text = (ROOT / "docs" / "production.md").read_text()
    told = {name: code(command) for name, command, _ in rows(section(text, "## Servers"))}
    assert told == COMMANDS


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


def test_the_error_codes() -> None:
    assert {code(cell) for cell, _ in rows(section(WIRE, "## Error codes"))} == error_codes()


def test_the_close_codes() -> None:
    told = {number: {come_back} for number, _, come_back in rows(section(WIRE, "## Close codes"))}
    others = [told.pop(number) for number in OTHERS_CLOSE_CODES]
    assert told == close_codes()
    assert others == [{"never"}] * len(others)


def test_the_ranges_of_close_codes() -> None:
    """Those of the table are as the ranges say, and so are the clients."""
    for number, _, come_back in rows(section(WIRE, "## Close codes")):
        if number.startswith("4"):
            assert (come_back == "after a pause") == (number >= "4410") == comes_back(int(number)), number
    assert comes_back(4499)
    assert not comes_back(4409)


def test_the_limits() -> None:
    told = [int(row[-1]) for row in rows(section(WIRE, "## For all dialects")) if row[-1].isdigit()]
    assert told == [MAX_TEXT_BYTES, MAX_AUDIO_BYTES, MAX_IMAGE_BYTES, MAX_TOOL_BYTES, MAX_BODY_BYTES]


def test_the_requests() -> None:
    told = re.findall(r"`(GET|POST|PATCH|DELETE) ([^`]+)`", section(WIRE, "## HTTP"))
    assert sorted(told) == sorted(
        (method.upper(), path)
        for path, methods in API["paths"].items()
        for method in methods
        if method != "parameters"
    )


def page_rows(start: str) -> list[list[str]]:
    """The cells of the first table behind `start` in static/docs.html, as plain text."""
    _, found, rest = PAGE.partition(start)
    assert found, start
    body = rest.partition("<tbody>")[2].partition("</tbody>")[0]
    plain = html.unescape(re.sub(r"</?(?:code|a)\b[^>]*>", "", body))
    plain = plain.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", plain)]


def plain_rows(text: str) -> list[list[str]]:
    """The cells of the tables of docs/wire.md, as plain text."""
    return rows(re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("`", ""))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("whose", ["client", "server"])
def test_the_page_tells_the_same_frames(dialect: str, whose: str) -> None:
    title = "### Client to server" if whose == "client" else "### Server to client"
    told = plain_rows(section(section(WIRE, f"## The {dialect} dialect"), title))
    assert page_rows(f'id="{dialect}-{whose}"') == told


def test_the_page_tells_the_same_codes() -> None:
    assert page_rows('id="live-errors"') == plain_rows(section(WIRE, "## Error codes"))
    assert page_rows('id="closes-title"') == plain_rows(section(WIRE, "## Close codes"))


def test_the_version() -> None:
    assert API["info"]["version"] == __version__
    assert f"({__version__})" in (ROOT / "CHANGELOG.md").read_text()


# ---- README.md -------------------------------------------------------------------------------


def test_the_readme_fits_on_three_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_the_settings() -> None:
    table = {code(name): code(default) for name, default, _ in rows(SETTINGS_TABLE)}
    del table["GOOGLE_API_KEY` or `GEMINI_API_KEY"]
    defaults = {
        setting.variable: "" if setting.default is None else setting.default_text
        for setting in SETTINGS.values()
    }
    assert [*table.items()] == [*defaults.items()]
    for line in section(README, "## Settings").splitlines():
        assert not line.startswith("| `") or line in SETTINGS_TABLE


def blocks(text: str, language: str) -> list[str]:
    """The blocks between fences of a document; `language` is what stands behind the opening fence."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def test_the_named_states() -> None:
    """Those that are an enumeration in the code."""
    named = re.findall(r"`([\w/]+)\.py` \(`(\w+)`\) \| (`.*`) \|$", ARCHITECTURE, re.MULTILINE)
    assert len(named) >= 4
    for module, name, states in named:
        machine = getattr(importlib.import_module(module.replace("/", ".")), name)
        assert [state.name for state in machine] == re.findall(r"`(\w+)`", states), name


@pytest.mark.parametrize(
    "folder", ["core", "wire", "wire/dialects", "wire/openai", "wire/twilio", "adk", "bus", "client", ""]
)
def test_all_files_are_named(folder: str) -> None:
    path = f"adk_relay/{folder}".rstrip("/")
    files = " ".join(files for _, files in rows(section(ARCHITECTURE, f"### `{path}`")))
    told = re.findall(r"`(\w+)`", files)
    there = {
        file.stem
        for file in (ROOT / path).iterdir()
        if (file.suffix == ".py" or (file / "__init__.py").exists()) and not file.stem.startswith("__")
    }
    assert sorted(told) == sorted(there)


async def test_the_examples_of_the_readme(
    tmp_path: Path, gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent and the application around relay, as they stand there: a client talks with them."""
    for block in blocks(README, "python"):
        file = tmp_path / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        main: Any = importlib.import_module("main")
        async with serving(main.app) as port, client(port, path="/talk") as alice:
            assert await alice.ask("hello") == "You said: hello."
        assert main.relay.conversations.is_closing()  # its lifespan has ended the run, before the grace
        await gemini.wait_for(lambda: not gemini.open_connections)
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("main", "my_pkg"):
                del sys.modules[name]


def test_the_programs_of_the_system() -> None:
    """Those that tests need are those that CI installs, besides what makes its environment."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text().replace("\\\n", "")
    [told] = re.findall(r"apt-get install (.*)$", contributing, re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text().replace("\\\n", "")
    [installed] = re.findall(r"no-install-recommends (.*) &$", ci, re.MULTILINE)
    assert told.split() == installed.split()


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"\b((?:adk_relay|deploy|docs|static|tests)/[\w/]+\.\w+)", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
