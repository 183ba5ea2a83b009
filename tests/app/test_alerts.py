"""deploy/alerts.yml and deploy/dashboard.json: Prometheus takes them, and relay has what they ask for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adk_relay.core.credits import Usage
from support.server import ROOT, a_relay, need

ALERTS = ROOT / "deploy" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "dashboard.json").read_text())
TESTS = Path(__file__).parent / "alerts_test.yml"


def promtool(folder: Path, *arguments: str) -> str:
    """What promtool says; it must be content."""
    program = need("promtool", "prometheus")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """The queries of the dashboard, with Grafana's variables replaced."""
    return [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def test_the_rules_are_rules(tmp_path: Path) -> None:
    said = promtool(ROOT / "deploy", "check", "rules", "alerts.yml")
    assert "5 rules found" in said


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    for file in (ALERTS, TESTS):
        shutil.copy(file, tmp_path)
    promtool(tmp_path, "test", "rules", TESTS.name)


def test_the_queries_of_the_dashboard_are_queries(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    assert len(rules) > 20
    # JSON is YAML, too.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool(tmp_path, "check", "rules", "rules.yml")


async def test_relay_has_every_metric_and_label_that_is_asked_for() -> None:
    relay = a_relay()
    stats = relay.conversations.stats
    stats.use(Usage(1, 1, 1, 4))
    stats.tools.observe("tool", 1.0)
    for tally in (stats.tools_called, stats.tools_failed, stats.refused, stats.responses):
        tally.count("one")
    stats.failures.count("one")
    stats.connections.count("short")
    stats.traffic_of("text").errors.count("one")
    registry = CollectorRegistry()
    registry.register(relay.metrics())
    has: dict[str, set[str]] = {}
    values: set[tuple[str, str, str]] = set()
    text = generate_latest(registry).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            has.setdefault(sample.name, set()).update(sample.labels)
            values |= {(sample.name, label, value) for label, value in sample.labels.items()}
    asked = "\n".join([*expressions(), ALERTS.read_text()])
    names = set(re.findall(r"\brelay_\w+", asked))
    assert len(names) > 20
    # The descriptions name families, and a histogram's samples end in _bucket.
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in names if name not in has and name not in families} == set()
    grouped = re.findall(r"sum by \(([\w, ]+)\)\s*\((?:(?:rate|increase)\()?(relay_\w+)", asked)
    assert len(grouped) > 20
    for labels, name in grouped:
        assert {*labels.split(", ")} - {"instance"} <= has[name], name
    matched = re.findall(r'(relay_\w+)\{(\w+)="(\w+)"', asked)
    assert {*matched} <= values
    assert matched
