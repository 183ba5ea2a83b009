"""The package behind `relay.py`, in three layers.

`core` is plain Python. `wire` serves sockets, and `adk` runs the agent with Google's Agent Development Kit;
both import `core`, and never each other. `relay.py` joins them.

`settings.py` has the settings, `agents.py` finds the agent, `__main__.py` is the command, and `client` is the
terminal client, which imports none of the layers.
"""

from pathlib import Path

__version__ = "0.2.0"


def shipped(name: str) -> Path:
    """The folder `static`, `agent` or `clients/js/src` that came with this package.

    In an installed package the folder is inside `adk_relay`; in a checkout of the repository it is beside it.
    """
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
