"""The proxies of deploy/, with their shipped configurations, over TLS."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme

from support.ports import free_port
from support.process import process
from support.server import ROOT, need

DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class Front:
    """A proxy that runs.

    Attributes:
        port: where it takes TLS.
        plain: where it takes HTTP, and redirects to HTTPS.
        tls: what a client needs to trust it.
        log: returns all that it has logged.
    """

    port: int
    plain: int
    tls: ssl.SSLContext
    log: Callable[[], str]

    def browsing(self) -> httpx.AsyncClient:
        """An HTTP client for it."""
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=self.tls,
            trust_env=False,
            follow_redirects=True,
            timeout=60,
        )


Proxy = Callable[..., AbstractAsyncContextManager[Front]]


def shipped(name: str, replaced: Mapping[str, str]) -> str:
    """The file of deploy/ with some texts replaced, which it must have."""
    text = (DEPLOY / name).read_text()
    for old, new in replaced.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> ssl.SSLContext:
    """Makes chain.pem, key.pem and both.pem in the folder; returns what trusts them."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(folder / "chain.pem"), append=number > 0)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


def nginx_conf(folder: Path, outside: int, plain: int, relays: tuple[int, int]) -> Path:
    """nginx.conf with these ports, and all files in the folder; the folder has the certificate."""
    scratch = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        shipped(
            "nginx.conf",
            {
                "user www-data;": "user root;",  # the tests' folder is closed for others
                "listen 80;": f"listen 127.0.0.1:{plain};",
                "listen 443 ssl;": f"listen 127.0.0.1:{outside} ssl;",
                "/etc/letsencrypt/live/relay.example.com/fullchain.pem": f"{folder}/chain.pem",
                "/etc/letsencrypt/live/relay.example.com/privkey.pem": f"{folder}/key.pem",
                "/var/cache/nginx-relay": f"{folder}/cache",
                "127.0.0.1:8000": f"127.0.0.1:{relays[0]}",
                "127.0.0.1:8001": f"127.0.0.1:{relays[1]}",
                "/run/nginx.pid": f"{folder}/nginx.pid",
                "/var/log/nginx/": f"{folder}/",
                "\nhttp {\n": f"\nhttp {{ {scratch}\n",
            },
        )
    )
    return file


@asynccontextmanager
async def nginx(folder: Path, *relays: int, affinity: bool = True) -> AsyncIterator[Front]:
    """nginx before relays on one or two ports. It must have no complaints at the end.

    Args:
        affinity: all sockets of a user reach the same relay.
    """
    program = need("nginx", "nginx-light")
    tls = certificate(folder)
    outside, plain = free_port(), free_port()
    file = nginx_conf(folder, outside, plain, (relays[0], relays[-1]))
    if not affinity:
        file.write_text(re.sub(r"(?m)^ *hash .*\n", "", file.read_text()))
    command = [program, "-c", str(file), "-e", f"{folder}/error.log", "-g", "daemon off;"]

    def log() -> str:
        return "".join((folder / f"{name}.log").read_text() for name in ("access", "error"))

    async with running(command, folder, outside):
        yield Front(outside, plain, tls, log)
    complaints = (folder / "error.log").read_text().splitlines()
    # Said to everybody who is not root, and right.
    assert [line for line in complaints if '"user" directive' not in line] == []


@asynccontextmanager
async def running(command: list[str], folder: Path, port: int) -> AsyncIterator[list[str]]:
    """Runs a proxy until it is not needed any more; yields what it writes, once it listens on the port."""
    async with process(command, folder, {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}) as proxy:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    assert proxy.is_running, proxy.log
                    await asyncio.sleep(0.02)
            writer.close()
        yield proxy.log
        await proxy.stop()


@asynccontextmanager
async def caddy(folder: Path, *relays: int) -> AsyncIterator[Front]:
    """Caddy before relays on one or two ports."""
    program = need("caddy", "caddy")
    tls = certificate(folder)
    outside, plain = free_port(), free_port()
    file = folder / "Caddyfile"
    file.write_text(caddyfile(folder, outside, plain, (relays[0], relays[-1])))
    async with running([program, "run", "--config", str(file)], folder, outside) as log:
        yield Front(outside, plain, tls, lambda: "\n".join(log))


def caddyfile(folder: Path, outside: int, plain: int, relays: tuple[int, int]) -> str:
    """The Caddyfile with these ports and the certificate in the folder, and without Caddy's own interface."""
    return shipped(
        "Caddyfile",
        {
            "\n{\n": f"\n{{\n\tadmin off\n\thttp_port {plain}\n\thttps_port {outside}\n",
            "{$SITE:relay.example.com} {\n": "https://127.0.0.1 {\n\tbind 127.0.0.1\n"
            f"\ttls {folder}/chain.pem {folder}/key.pem\n",
            "127.0.0.1:8000": f"127.0.0.1:{relays[0]}",
            "127.0.0.1:8001": f"127.0.0.1:{relays[1]}",
        },
    )


@asynccontextmanager
async def haproxy(folder: Path, *relays: int) -> AsyncIterator[Front]:
    """HAProxy before relays on one or two ports."""
    program = need("haproxy", "haproxy")
    tls = certificate(folder)
    outside, plain = free_port(), free_port()
    file = folder / "haproxy.cfg"
    file.write_text(haproxy_cfg(folder, outside, plain, (relays[0], relays[-1])))
    async with running([program, "-db", "-f", str(file)], folder, outside) as log:
        yield Front(outside, plain, tls, lambda: "\n".join(log))


def haproxy_cfg(folder: Path, outside: int, plain: int, relays: tuple[int, int]) -> str:
    """haproxy.cfg with these ports and the certificate in the folder."""
    return shipped(
        "haproxy.cfg",
        {
            "bind :80\n": f"bind 127.0.0.1:{plain}\n",
            "bind :443 ": f"bind 127.0.0.1:{outside} ",
            "/etc/haproxy/relay.pem": f"{folder}/both.pem",
            "127.0.0.1:8000": f"127.0.0.1:{relays[0]}",
            "127.0.0.1:8001": f"127.0.0.1:{relays[1]}",
        },
    )


PROXIES: dict[str, Proxy] = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}
