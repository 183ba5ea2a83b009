"""The guides through the code name what exists, and are as short as they say."""

from __future__ import annotations

import ast
import re

import pytest

from support.server import ROOT

GUIDES = {name: (ROOT / "docs" / name).read_text() for name in ("reading.md", "bus.md")}


def stops(guide: str) -> list[tuple[str, str]]:
    """Files, and what is to be read in them: each is `path:qualname`."""
    return re.findall(r"`([\w/]+\.py):([\w.]+)`", GUIDES[guide])


MOST = 1500
"""Lines that can be read in an afternoon."""


def definition(path: str, qualname: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef:
    """The function or class that a stop names."""
    node: ast.AST = ast.parse((ROOT / path).read_text())
    for name in qualname.split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = [child for child in ast.iter_child_nodes(node) if isinstance(child, kinds)]
        node = next((child for child in found if child.name == name), node)
        assert getattr(node, "name", "") == name, f"{path} has no {qualname}"
    assert isinstance(node, kinds)
    return node


def lines(path: str, qualname: str) -> set[tuple[str, int]]:
    """The lines of a stop; those of a method are lines of its class too, and count once."""
    node = definition(path, qualname)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return {(path, number) for number in range(first, (node.end_lineno or first) + 1)}


@pytest.mark.parametrize("stop", [stop for guide in GUIDES for stop in stops(guide)], ids=":".join)
def test_each_stop_exists(stop: tuple[str, str]) -> None:
    assert lines(*stop)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_as_short_as_it_says(guide: str) -> None:
    read = [stop for stop in stops(guide) if not stop[0].startswith("tests/")]
    count = len(set[tuple[str, int]]().union(*(lines(*stop) for stop in read)))
    [told] = re.findall(r"about\s([\d,]+) lines", GUIDES[guide])
    assert abs(count - int(told.replace(",", ""))) <= 50, count
    assert count <= MOST
