"""`textscanner objectstore start|stop|status`: a local S3 server for trying out object storage."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from jobs.cli import HelpFormatter, cli_errors, program

DEFAULT_FOLDER = "runs/objectstore"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("objectstore"),
        description="Runs a local S3 server on the loopback interface; its objects are files in a folder.",
        epilog=f'eval "$({program("objectstore")} start)" sets the environment of S3 clients in this shell.',
        formatter_class=HelpFormatter,
    )
    parser.add_argument("action", choices=("start", "stop", "status"), help="what to do")
    parser.add_argument("--folder", default=DEFAULT_FOLDER, metavar="DIR", help="folder for the objects")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Starts, stops or shows the server; returns 0, or 1 if `status` shows that none is running."""
    args = _parser().parse_args(argv)
    from cluster.storage import local_server

    if args.action == "start":
        server = local_server.start(args.folder)
        for name, value in server.environment.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# {server.uri}")
        return 0
    if args.action == "stop":
        stopped = local_server.stop(args.folder)
        print(f"stopped; the objects stay in {args.folder}" if stopped else f"no server is running in {args.folder}")
        return 0
    running = local_server.status(args.folder)
    if not running:
        print(f"no server is running in {args.folder}")
        return 1
    print(f"{running.uri} at {running.endpoint}, process {running.pid}, objects in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
