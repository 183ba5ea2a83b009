"""What `relay.py` is made of, in three layers.

`core` is plain Python. `wire` is the socket side and `adk` the side of Google's Agent Development Kit; both
import `core`, and never each other. `relay.py` joins them.

`settings.py` and `agents.py` say what is served, `__main__.py` is the command, and `client` is the terminal
client, which imports none of the layers.
"""

from pathlib import Path

__version__ = "0.2.0"


def shipped(name: str) -> Path:
    """The folder `static` or `agent` that came with this package.

    It lies inside of the package where that was installed, and beside it in a checkout of the repository.
    """
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else inside.parent.parent / name
