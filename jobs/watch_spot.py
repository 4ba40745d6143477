"""`python -m jobs.watch_spot CLOUD`: drains this node when its cloud announces that it takes it away.

Started on every worker by ray_cluster.yaml (aws) and cluster/deploy/gcp/ray_cluster.yaml (gcp).
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Sequence

from jobs.command import Help, cli_errors


def _parser() -> argparse.ArgumentParser:
    from cluster.deploy.spot_watcher import METADATA_URL, NOTICES, POLL_S

    parser = argparse.ArgumentParser(
        prog="python -m jobs.watch_spot",
        description="Waits for the cloud's notice that this node is taken away, and drains it from the Ray cluster.",
        formatter_class=Help,
    )
    parser.add_argument("cloud", choices=sorted(NOTICES), help="whose notice")
    parser.add_argument("--address", default="auto", metavar="HOST:PORT", help="the Ray cluster this node is in")
    parser.add_argument("--node-id", metavar="HEX", help="the node to drain, if it is not this one")
    parser.add_argument("--metadata-url", default=METADATA_URL, metavar="URL", help="where the cloud tells")
    parser.add_argument("--poll-s", type=float, default=POLL_S, metavar="S", help="seconds between two questions")
    return parser


@cli_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Watches until a notice has been acted on; returns 0."""
    from cluster.deploy.spot_watcher import NOTICES, drain, watch

    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stdout)
    poll = functools.partial(NOTICES[args.cloud], args.metadata_url)
    watch(poll, functools.partial(drain, address=args.address, node_id=args.node_id), args.poll_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
