"""Finds the agent to serve: the one RELAY_AGENT names, the one in the folder agent/, or the built-in one.

ADK's own AgentLoader supports the same folder layouts, but is not used for these reasons. It puts the parent
folder first on `sys.path`, so that a user's `client.py` replaces an installed module of that name; it imports
an installed package `agent` instead of a folder without `__init__.py`; it reads the `.env` of any parent
folder; and its errors have many lines.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from google.adk.agents.config_agent_utils import from_config
from google.adk.apps import App

from adk_relay import shipped
from adk_relay.adk.credentials import missing_credentials
from adk_relay.adk.rehearse import rehearse
from adk_relay.adk.tree import needs_credentials
from adk_relay.core.logs import failure, one_line
from adk_relay.settings import SettingsError

BUILT_IN = "adk_relay.agent:root_agent"
"""The built-in agent, as RELAY_AGENT names it."""


class Found(NamedTuple):
    """An agent or an App, or what was found in its place.

    Attributes:
        agent: any object; `Relay` refuses it if it is neither.
        file: where it was found.
        origin: the setting or the folder that led to it, for error messages.
    """

    agent: Any
    file: str
    origin: str


def agent_to_serve(reference: str | None, folder: Path, *, with_rehearsal: bool = False) -> Found:
    """The agent to serve, which has the credentials that it needs. See `find_agent`.

    Args:
        with_rehearsal: its models become the rehearsal model.

    Raises:
        SettingsError: there is no agent, it can't be imported, or credentials are missing.
    """
    found = find_agent(reference, folder)
    if with_rehearsal:
        rehearse(found.agent)
    try:
        is_gemini = needs_credentials(found.agent)
    except ValueError as error:  # ADK does not know the model
        raise SettingsError(f"{found.origin}: {one_line(error)}") from error
    if is_gemini and (missing := missing_credentials()):
        raise SettingsError(f"{found.origin} uses Gemini. {missing}")
    return found


def find_agent(reference: str | None, folder: Path) -> Found:
    """The agent to serve.

    Args:
        reference: `module:attribute`, or None if RELAY_AGENT is not set.
        folder: the working directory. Its modules can be imported from now on.

    Raises:
        SettingsError: there is no agent, or it can't be imported.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end, so that installed packages are found first
    if not reference and (own := folder / "agent").is_dir():
        return _of_folder(own)
    return _named(reference or BUILT_IN)


def _named(reference: str) -> Found:
    """The agent that a reference names, `module:attribute`."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"RELAY_AGENT is {reference!r}, but must be module:attribute")
    origin = f"RELAY_AGENT={reference}"
    try:
        if f"{module_name}.".startswith("adk_relay.agent."):
            # In a checkout the folder is beside the package, where no import statement finds it.
            _import_folder("adk_relay.agent", shipped("agent"))
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{origin}: there is no module {error.name!r}{_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{origin}: {failure(error)}{_place(error)}") from error
    try:
        return Found(getattr(module, attribute), str(module.__file__), origin)
    except AttributeError as error:
        raise SettingsError(f"{origin}: {error}") from error


def _of_folder(folder: Path) -> Found:
    """The agent of an ADK folder: `app` or `root_agent`, in the package or in its agent.py, or in YAML."""
    origin = f"The agent in {folder}"
    try:
        module = _import_folder("agent", folder)
        if not _has_agent(module) and any((folder / name).exists() for name in ("agent.py", "agent")):
            module = importlib.import_module("agent.agent")
        if _has_agent(module):
            return Found(_agent_of(module), str(module.__file__), origin)
        if (file := folder / "root_agent.yaml").is_file():
            return Found(from_config(str(file)), str(file), origin)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{origin} can't be imported: {failure(error)}{_place(error)}") from error
    raise SettingsError(
        f"The folder {folder} has no root_agent. Add one, as in any ADK agent folder, or set RELAY_AGENT"
        f" to another agent's module:attribute; RELAY_AGENT={BUILT_IN} is the built-in one."
    )


def _has_agent(module: ModuleType) -> bool:
    return isinstance(getattr(module, "app", None), App) or hasattr(module, "root_agent")


def _agent_of(module: ModuleType) -> Any:
    """A module's App, or its agent. As in ADK, an App takes precedence over a `root_agent`."""
    app = getattr(module, "app", None)
    return app if isinstance(app, App) else module.root_agent


def _import_folder(name: str, folder: Path) -> ModuleType:
    """Imports a folder as the package `name`, wherever it lies, with or without an `__init__.py`."""
    known = sys.modules.get(name)
    if known and str(folder) in getattr(known, "__path__", ()):
        return known
    for module_name in [*sys.modules]:  # another package of that name, with its modules
        if f"{module_name}.".startswith(f"{name}."):
            del sys.modules[module_name]
    file = folder / "__init__.py"
    if file.is_file():
        spec = spec_from_file_location(name, file, submodule_search_locations=[str(folder)])
    else:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    assert spec
    module = sys.modules[name] = module_from_spec(spec)
    if spec.loader:
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _place(error: BaseException) -> str:
    """The file and the line of the user's code where an import failed, in brackets; "": not known."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename})"  # the error's text has the line
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<")
    ]
    here = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd())]
    own = [frame for frame in here if "site-packages" not in frame.filename] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
