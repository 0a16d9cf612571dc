"""TLS and a password in front of an HTTP server, as a cluster's security plugin asks for them."""

import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.servers.starting import HOST, missing

_NAMES = "subjectAltName=DNS:localhost"


class Secured:
    """Forwards from ``port`` to ``target`` what comes by TLS with ``user`` and ``password``.

    Its certificate, for ``localhost`` and no other name, is signed by an authority of its own, whose file is ``ca``.
    """

    user, password = "joe", "pass w/@:rd"

    def __init__(self, target: int, directory: Path) -> None:
        if not shutil.which("openssl"):
            missing("TLS", "openssl", "apt install openssl")
        self.ca = directory / "ca.pem"
        _signed(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        expected = "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()

        class Forwarding(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("authorization") != expected:
                    self.answer(401, b"Unauthorized", "text/plain")
                    return
                address = f"http://{HOST}:{target}{self.path}"
                kind = {"content-type": self.headers.get("content-type", "application/json")}
                request = urllib.request.Request(address, body or None, kind, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=60) as said:  # noqa: S310 - http
                        self.answer(said.status, said.read(), said.headers["content-type"])
                except urllib.error.HTTPError as error:
                    with error:
                        self.answer(error.code, error.read(), error.headers["content-type"])

            def answer(self, status: int, body: bytes, kind: str | None) -> None:
                self.send_response(status)
                self.send_header("content-type", kind or "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815 - http.server's names

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing of clients that do not like the certificate."""

        self._server = Server((HOST, 0), Forwarding)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _signed(directory: Path) -> None:
    """Make an authority, and a certificate that it has signed."""
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    _openssl(directory, *made.split(), "-subj", "/CN=turnlog tests", "-keyout", "ca.key", "-out", "ca.pem")
    wanted = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    _openssl(directory, *wanted.split(), "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (directory / "names").write_text(_NAMES)
    signing = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem"
    _openssl(directory, *signing.split())


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)  # noqa: S607 - on the path
