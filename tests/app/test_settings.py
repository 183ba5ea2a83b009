"""The settings are the same wherever they can be given, and wherever they are told."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from adk_relay import __main__ as command
from adk_relay.adk.models import model_from_env
from adk_relay.settings import SETTINGS, Options, Setting, from_environment
from support.server import ROOT, a_relay

ARGUMENTS = [setting for setting in SETTINGS.values() if setting.is_argument]
RANGED = [setting for setting in SETTINGS.values() if setting.range]


def named(setting: Setting) -> str:
    return setting.name


def test_relays_arguments_are_the_settings() -> None:
    assert [*Options.__annotations__] == [setting.name for setting in ARGUMENTS]
    for setting, annotation in zip(ARGUMENTS, Options.__annotations__.values(), strict=True):
        assert setting.type.__name__ == annotation.__forward_arg__.partition(" ")[0]
        assert setting.default is None or isinstance(setting.default, setting.type)


def test_an_argument_that_is_no_setting_is_an_error() -> None:
    with pytest.raises(TypeError, match="Relay has no setting 'gracee'"):
        a_relay(gracee=3)


def test_all_numbers_have_a_range() -> None:
    assert [setting for setting in SETTINGS.values() if setting.type is not str] == RANGED


@pytest.mark.parametrize("setting", RANGED, ids=named)
def test_relay_takes_what_is_in_the_range_and_nothing_else(setting: Setting) -> None:
    wrong, right = ((-1, float("nan"), 0), ()) if setting.range == "> 0" else ((-1, float("nan")), (0,))
    for value in (*right, setting.default, setting.least or 1):
        a_relay(**{setting.name: value})
        setting.check(value)
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{setting.name} is {value}, but must "):
            a_relay(**{setting.name: value})


@pytest.mark.parametrize("setting", [each for each in RANGED if each.least], ids=named)
def test_relay_takes_nothing_that_could_not_work(setting: Setting) -> None:
    value = setting.least / 2
    with pytest.raises(
        ValueError, match=f"^{setting.name} is {value}, but must be at least {setting.least:g}"
    ):
        a_relay(**{setting.name: value})


def test_a_variable_that_is_no_setting_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RELAY_PING_INTERVALL", "3")
    monkeypatch.setenv("RELAY_THERMOSTAT", "21")
    monkeypatch.setenv("RELAY_GRACE", "3")
    monkeypatch.setenv("RELAY_PORT", "9000")
    monkeypatch.setenv("RELAY_SERVICE_HOST", "10.0.0.1")  # Kubernetes sets this, and much more
    assert from_environment()["grace"] == 3
    assert caplog.messages == [
        "RELAY_PING_INTERVALL is no setting of relay, and does nothing. Did you mean RELAY_PING_INTERVAL?",
        "RELAY_PORT is no setting of relay, and does nothing.",
        "RELAY_THERMOSTAT is no setting of relay, and does nothing.",
    ]


@pytest.mark.parametrize("setting", [each for each in ARGUMENTS if each.choices], ids=named)
def test_relay_takes_the_choices_and_nothing_else(setting: Setting) -> None:
    for choice in setting.choices:
        secret = {"secret": "s" * 32} if setting.name == "one_use" else {}  # it needs tokens
        a_relay(**{setting.name: choice}, **secret)
    for value in ("", "mine", str(setting.default).upper()):
        with pytest.raises(ValueError, match=f"^{setting.name} is '{value}', but must be "):
            a_relay(**{setting.name: value})


def text_of(setting: Setting) -> str:
    """A text that sets it, to another value than its default."""
    if setting.choices:
        return next(choice for choice in setting.choices if choice != setting.default)
    return {str: "mine", int: "7777", float: "7.5"}[setting.type]


def test_the_command_has_an_option_for_each_setting() -> None:
    """What an option says is in the environment when the server starts."""
    program = (
        "import os, sys, uvicorn\n"
        "from adk_relay.__main__ import main\n"
        "def run(server):\n"
        "    server.started, config = True, server.config\n"
        "    print(config.app, config.host, config.port, config.log_level, config.forwarded_allow_ips)\n"
        "    print(*sorted(f'{name}={value}' for name, value in os.environ.items() if 'RELAY_' in name))\n"
        "uvicorn.Server.run = run\n"
        "main(sys.argv[1:])\n"
    )
    options = [word for setting in SETTINGS.values() for word in (setting.option, text_of(setting))]
    server = ["--host", "::1", "--port", "1234", "--log-level", "debug", "--forwarded-allow-ips", "::2"]
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", *server, *options],
        env={"PYTHONPATH": str(ROOT), "RELAY_GRACE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    where, told = done.stdout.splitlines()
    assert where == "relay:app ::1 1234 debug ::2"
    assert told.split() == sorted(f"{setting.variable}={text_of(setting)}" for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--grace", "a while"], "argument --grace: it is 'a while', but must be a number"),
        (["--queue-bytes", "1.5"], "argument --queue-bytes: it is '1.5', but must be a whole number"),
        (["--grace", "-1"], "argument --grace: grace is -1.0, but must not be negative"),
        (["--ping-interval", "0"], "argument --ping-interval: ping_interval is 0.0, but must be above 0"),
        (["--port", "99999"], "argument --port: it is '99999', but must be a whole number from 0 to 65535"),
        (["--port", "http"], "argument --port: it is 'http', but must be a whole number from 0 to 65535"),
        (["--log-level", "loud"], "argument --log-level: invalid choice"),
        (["--ping", "5"], "unrecognized arguments: --ping 5"),
    ],
)
def test_a_wrong_option_is_one_plain_error(
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uvicorn.run", None)  # a wrong option that is taken for a right one must not serve
    with pytest.raises(SystemExit) as ended:
        command.main(["serve", *arguments])
    assert ended.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: relay serve ")
    assert error.startswith(f"relay serve: error: {complaint}")


def test_help_tells_each_setting_and_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit) as ended:
        command.main(["serve", "--help"])
    assert ended.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for setting in SETTINGS.values():
        default = "" if setting.default is None else f" ({setting.default_text})"
        [line] = [line for line in lines if line.startswith(f"{setting.option} ")]
        assert line.endswith(f" {setting.help}{default} [{setting.variable}]")


def test_env_example_tells_each_setting_and_its_default() -> None:
    told: dict[str, tuple[str, str]] = {}
    comment: list[str] = []
    for line in (ROOT / ".env.example").read_text().splitlines():
        if found := re.fullmatch(r"#(RELAY_\w+)=(.*)", line):
            told[found[1]] = (" ".join(comment), found[2])
            comment = []
        elif line.startswith("# ") and not line.startswith("# ---"):
            comment.append(line.removeprefix("# "))
        else:
            comment = []
    assert list(told) == [setting.variable for setting in SETTINGS.values()]
    for setting in SETTINGS.values():
        text, default = told[setting.variable]
        assert text == setting.help
        assert setting.default is None or default == setting.default_text


def test_the_default_model_is_the_one_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELAY_MODEL", raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key-that-is-not-tried")
    assert model_from_env().model == SETTINGS["model"].default


def test_version_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["version"]) == 0
    said: Any = capsys.readouterr().out
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", said)
    assert f'__version__ = "{said.strip()}"' in (ROOT / "adk_relay" / "__init__.py").read_text()


@pytest.mark.parametrize("arguments", [[], ["surf"], ["--serve"]])
def test_what_is_no_command_is_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("relay: error: ")


def test_chat_is_the_terminal_client(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["chat", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: relay chat ")
