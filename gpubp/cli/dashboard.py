"""`gpubp dashboard`: a page of runs, in the browser of this machine."""

from __future__ import annotations

import argparse
import importlib.util
import socket
import sys
from pathlib import Path
from typing import Any

from gpubp.cli.failures import BAD_DATA, WRONG_ARGUMENTS, CommandError, of_files
from gpubp.errors import missing_extra

NAME = "dashboard"
HELP = "show running and finished runs in the browser"
EPILOG = """
A run is a folder that `gpubp train --log run:FOLDER` (or `gpubp.train.RunFolder`) keeps, a CSV log,
or a checkpoint. Of other folders all runs below them are shown, new ones as they begin. The page
follows them: curves, what each was made with, how it stands, and the parts of its compiled step.
Only this machine's browser can reach it, and it loads nothing from elsewhere.

examples:
  gpubp train iris.csv --target species --log run:runs/first
  gpubp dashboard runs
  gpubp dashboard runs/first old.csv run.ckpt --port 9000 --open
"""
PORT = 8070
_PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "jinja2": "Jinja2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder, CSV log or checkpoint")
    parser.add_argument("--port", default=PORT, type=int, help=f"of the page ({PORT}); 0: any")
    parser.add_argument("--open", action="store_true", help="open it in the browser")


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    from gpubp.dashboard import runs

    for module, package in {**_PACKAGES, "matplotlib": "matplotlib"}.items():
        if importlib.util.find_spec(module) is None:
            raise missing_extra(package, "dashboard", "gpubp dashboard")
    paths = [Path(path) for path in options.runs]
    with of_files():
        runs.find(paths)
    with listening(options.port) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(address, flush=True)
        print("Ctrl-C ends it", file=sys.stderr)
        if options.open:
            import webbrowser

            webbrowser.open(address)
        _serve(paths, listener)
    return 0


def listening(port: int) -> socket.socket:
    """A socket that this machine alone can reach.

    Raises:
        CommandError: the port is taken, or there is none of that number.
    """
    if not 0 <= port <= 65535:
        raise CommandError(WRONG_ARGUMENTS, f"--port is {port}, expected 0 to 65535.")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(
            BAD_DATA, f"port {port} cannot be used: {reason}. Choose another (--port 0: any)."
        ) from error


def _serve(paths: list[Path], listener: socket.socket) -> None:
    import uvicorn

    from gpubp.dashboard.app import application

    made: Any = application(paths)
    config = uvicorn.Config(
        made, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
