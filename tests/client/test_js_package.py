"""The npm package: what it holds, and that programs with types can use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adk_relay import __version__
from support.node import PACKAGE, modules, run

STRICT = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "skipDefaultLibCheck": True,  # TypeScript's own
        "target": "ES2022",
        "module": "NodeNext",
        "jsx": "react-jsx",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "types": [],
    }
}


@pytest.mark.timeout(300)  # tsc runs twice: once for the package's own types
def test_programs_with_types_can_use_it(tmp_path: Path) -> None:
    package = modules(tmp_path) / "relay-live"
    own = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "src").iterdir()}
    types = {f"types/{Path(name).stem}.d.ts" for name in own if not name.endswith(".worklet.js")}
    held = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert held == own | types | {"package.json", "README.md", "LICENSE"}
    told = json.loads((package / "package.json").read_text())
    assert told["version"] == __version__
    assert "dependencies" not in told

    for name in ("typed.ts", "react.tsx"):
        (tmp_path / name).write_bytes((PACKAGE / "examples" / name).read_bytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps(STRICT))
    run("tsc", "--project", "tsconfig.json", cwd=tmp_path)
