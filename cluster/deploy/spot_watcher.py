"""Drains a spot node before the cloud reclaims it, so that Ray counts a preemption instead of a failure.

The cloud announces an interruption about two minutes (AWS) or half a minute (GCP) in advance, only at the node's
metadata address. Ray does not look there: without a drain, the loss of the node would count against
`train.max_failures`. Draining makes Ray's scheduler place nothing new on the node, and makes Ray Train expect the loss
and restart from the last checkpoint on other nodes. On Kubernetes and Slurm, `ray start --block` drains its node when
it is terminated; this module is for clusters of `ray up`.

Both clouds are polled every few seconds. Not used: AWS' rebalance recommendation, which comes earlier but often without
an interruption, and GCP's blocking request (`wait_for_change`), which would add a second waiting mechanism.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]
from ray.exceptions import RayError

METADATA_URL = "http://169.254.169.254"
POLL_S = 2.0
REQUEST_TIMEOUT_S = 2.0
GCP_NOTICE_S = 30.0
DRAIN_TIMEOUT_S = 5.0
TOKEN_TTL_S = 60

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Notice:
    """An announced interruption.

    Attributes:
      message: the cloud's, for Ray's logs.
      remaining_s: seconds until the node is reclaimed.
    """

    message: str
    remaining_s: float


def aws_notice(metadata_url: str = METADATA_URL) -> Notice | None:
    """The interruption that AWS has announced to this instance, if any; the request uses a session token (IMDSv2).

    Raises:
      OSError: the metadata service does not answer.
    """
    token = _fetch(
        f"{metadata_url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}, "PUT"
    )
    address = f"{metadata_url}/latest/meta-data/spot/instance-action"
    try:
        action = json.loads(_fetch(address, {"X-aws-ec2-metadata-token": token}))
    except urllib.error.HTTPError as error:
        if error.code == 404:  # no interruption is announced
            return None
        raise
    end = datetime.datetime.fromisoformat(action["time"])
    remaining_s = (end - datetime.datetime.now(datetime.UTC)).total_seconds()
    return Notice(f"AWS: {action['action']} at {action['time']}", max(0.0, remaining_s))


def gcp_notice(metadata_url: str = METADATA_URL) -> Notice | None:
    """The preemption that GCP has announced to this instance, if any.

    Raises:
      OSError: the metadata service does not answer.
    """
    preempted = _fetch(f"{metadata_url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("GCP: preempted", GCP_NOTICE_S) if preempted.strip() == "TRUE" else None


NOTICES: dict[str, Callable[[str], Notice | None]] = {"aws": aws_notice, "gcp": gcp_notice}


def this_node(address: str) -> tuple[str, str]:
    """(id of this node in the cluster at `address`, address of the cluster's control service)"""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        context = ray.get_runtime_context()
        return context.get_node_id(), context.gcs_address
    finally:
        ray.shutdown()


def drain(notice: Notice, address: str = "auto", node_id: str | None = None) -> None:
    """Drains this node, or `node_id`.

    Like `ray drain-node`, but that command cannot determine which node it runs on, and waits forever for a cluster that
    does not answer.

    Raises:
      ConnectionError: the cluster does not answer, or refuses.
    """
    if node_id is None:
        node_id, address = this_node(address)
    deadline_ms = int((time.time() + notice.remaining_s) * 1000)
    try:
        accepted, refusal = GcsClient(address=address).drain_node(
            node_id, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, notice.message, deadline_ms, timeout=DRAIN_TIMEOUT_S
        )
    except RayError as error:
        raise ConnectionError(f"the cluster at {address} does not answer: {error}") from error
    if not accepted:
        raise ConnectionError(f"the cluster at {address} refuses to drain {node_id}: {refusal}")


def watch(poll: Callable[[], Notice | None], handle: Callable[[Notice], None], poll_s: float = POLL_S) -> Notice:
    """Polls until there is a notice, then handles it; a failure is logged and the attempt is repeated.

    Whatever the failure is: an answer that is no JSON, or half of one, must not leave the node unwatched.

    Returns:
      the notice that was handled.
    """
    while True:
        try:
            notice = poll()
            if notice is not None:
                logger.warning("%s, %.0f s left: draining this node", notice.message, notice.remaining_s)
                handle(notice)
                return notice
        except Exception as error:
            logger.warning("will retry in %g s: %s: %s", poll_s, type(error).__name__, error)
        time.sleep(poll_s)


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str:
    # No proxy, even if the environment names one: there, the metadata address would be the proxy's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers, method=method)
    with opener.open(request, timeout=REQUEST_TIMEOUT_S) as response:
        return str(response.read().decode())
