"""`gpubp docs`: the documentation in the browser of this machine, without a network."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gpubp
from gpubp.cli.dashboard import listening
from gpubp.cli.failures import BAD_DATA, CommandError

NAME = "docs"
HELP = "show the documentation in the browser, without a network"
EPILOG = """
SITE is the folder that `mkdocs build` makes in a checkout or an unpacked source distribution
(pip install ".[docs]" && mkdocs build); default is the folder site of the checkout that gpubp is
run from. Only this machine's browser can reach it, and it loads nothing from elsewhere.

examples:
  mkdocs build && gpubp docs --open
  gpubp docs /usr/share/doc/gpubp/site --port 9000
"""
PORT = 8071
_PAGE = "index.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("site", nargs="?", metavar="SITE", help="folder of the site")
    parser.add_argument("--port", default=PORT, type=int, help=f"of the pages ({PORT}); 0: any")
    parser.add_argument("--open", action="store_true", help="open them in the browser")


def run(options: argparse.Namespace) -> int:
    """Serve the pages until Ctrl-C; returns the exit code."""
    from http.server import ThreadingHTTPServer

    folder = _site(options.site, Path(gpubp.__file__).parent.parent)
    handler = partial(_handler(), directory=str(folder))
    with (
        listening(options.port) as listener,
        ThreadingHTTPServer(("127.0.0.1", 0), handler, False) as server,
    ):
        server.socket.close()
        server.socket = listener
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(address, flush=True)
        print(f"{folder}; Ctrl-C ends it", file=sys.stderr)
        if options.open:
            import webbrowser

            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _handler() -> Any:
    """What answers, without a line on stderr for each page; made here, as its parts load slowly."""
    from http.server import SimpleHTTPRequestHandler

    quiet = {"log_message": lambda self, *args: None}
    return type("Pages", (SimpleHTTPRequestHandler,), quiet)


def _site(given: str | None, root: Path) -> Path:
    """The folder to serve.

    Args:
        given: by the user, or None.
        root: where the package lies: a checkout, or the folder of installed packages.

    Raises:
        CommandError: there is no site; says where the pages are, or how to get them.
    """
    folder = root / "site" if given is None else Path(given)
    if (folder / _PAGE).is_file():
        return folder
    pages = root / "docs" / "README.md"
    if given is not None:
        reason = f"{folder} has no {_PAGE}: expected the folder that `mkdocs build` made."
    elif pages.is_file():
        reason = (
            f"the site is not built: in {root}, run pip install '.[docs]' && mkdocs build. Its "
            f"pages as text begin at {pages}."
        )
    else:
        reason = (
            "the wheel has no documentation; the source distribution has (pip download --no-deps "
            "--no-binary gpubp gpubp): unpack it, mkdocs build there, gpubp docs SITE. Every "
            "public name has help() as well."
        )
    raise CommandError(BAD_DATA, reason)
