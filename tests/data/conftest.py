import functools
import http.server
import os
import threading
from pathlib import Path

import pytest


@pytest.fixture
def data_dir():
    folder = os.environ.get("ZOO_DATA_DIR")
    if not folder:
        pytest.skip("needs real data sets: set ZOO_DATA_DIR")
    return Path(folder)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.startswith("/cut-short/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            return
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web server on this machine: `folder` is what it serves, `url` where, `requests` what of."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests = []
    server.folder = folder
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dead_url():
    """An address where nobody listens."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Handler)
    port = server.server_port
    server.server_close()
    return f"http://127.0.0.1:{port}"
