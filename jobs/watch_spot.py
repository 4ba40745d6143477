"""`textscanner watch-spot CLOUD`: drains this node when its cloud announces that it will reclaim it.

ray_cluster.yaml (aws) and cluster/deploy/gcp/ray_cluster.yaml (gcp) start it on every worker node.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Sequence

from jobs.cli import HelpFormatter, cli_errors, program


def _parser() -> argparse.ArgumentParser:
    from cluster.deploy.spot_watcher import METADATA_URL, NOTICES, POLL_S

    parser = argparse.ArgumentParser(
        prog=program("watch-spot"),
        description="Waits for the cloud's interruption notice, then drains this node from the Ray cluster.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("cloud", choices=sorted(NOTICES), help="cloud that the node runs in")
    parser.add_argument("--address", default="auto", metavar="HOST:PORT", help="Ray cluster that the node belongs to")
    parser.add_argument("--node-id", metavar="HEX", help="node to drain (default: this node)")
    parser.add_argument("--metadata-url", default=METADATA_URL, metavar="URL", help="metadata service of the cloud")
    parser.add_argument("--poll-s", type=float, default=POLL_S, metavar="S", help="seconds between two requests")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Watches until a notice arrives and the node is drained; returns 0."""
    from cluster.deploy.spot_watcher import NOTICES, drain, watch

    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stdout)
    get_notice = functools.partial(NOTICES[args.cloud], args.metadata_url)
    watch(get_notice, functools.partial(drain, address=args.address, node_id=args.node_id), args.poll_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
