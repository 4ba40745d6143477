"""`python -m jobs.objectstore start|stop|status`: a local S3 server for trying things out."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from jobs.command import Help, cli_errors

DEFAULT_FOLDER = "runs/objectstore"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.objectstore",
        description="A local object store that speaks S3, on loopback only; its objects are kept in a folder.",
        epilog='eval "$(python -m jobs.objectstore start)" sets what clients need in this shell.',
        formatter_class=Help,
    )
    parser.add_argument("verb", choices=("start", "stop", "status"), help="what to do")
    parser.add_argument("--folder", default=DEFAULT_FOLDER, metavar="DIR", help="where the objects are kept")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Starts, stops or tells; returns 0, or 1 if no server runs that should."""
    args = _parser().parse_args(argv)
    from cluster.storage import local_server

    if args.verb == "start":
        server = local_server.start(args.folder)
        for name, value in server.environment.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# {server.uri}")
        return 0
    if args.verb == "stop":
        stopped = local_server.stop(args.folder)
        print(f"stopped; the objects stay in {args.folder}" if stopped else f"no server runs in {args.folder}")
        return 0
    running = local_server.status(args.folder)
    told = f"{running.uri} at {running.endpoint}, process {running.pid}" if running else "no server runs"
    print(f"{told} in {args.folder}")
    return 0 if running else 1


if __name__ == "__main__":
    sys.exit(main())
