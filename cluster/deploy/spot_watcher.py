"""A spot node that is about to be taken away drains itself, so that Ray knows it as preempted and not as broken.

The cloud tells a node about two minutes (AWS) or half a minute (GCP) ahead, at its metadata address and nowhere else.
Ray does not ask there: without a drain the node's death would count against `train.max_failures`. Draining tells Ray's
scheduler to place nothing new on the node, and Ray Train to expect the loss and to start again from the last checkpoint
elsewhere. On Kubernetes and Slurm `ray start --block` drains its node when it is told to end; this is for `ray up`.

Chosen: to ask every few seconds, the same for both clouds. Given up: AWS' rebalance recommendation (it comes earlier,
and often without an interruption), and GCP's hanging request (one more way to wait).
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
    """What the cloud has announced: its own words, and the seconds that are left."""

    message: str
    remaining_s: float


def aws_notice(metadata_url: str = METADATA_URL) -> Notice | None:
    """The interruption that AWS has announced to this instance, asked with a session token (IMDSv2).

    Raises:
      OSError: the metadata service does not answer.
    """
    token = _fetch(
        f"{metadata_url}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}, "PUT"
    )
    address = f"{metadata_url}/latest/meta-data/spot/instance-action"
    try:
        told = json.loads(_fetch(address, {"X-aws-ec2-metadata-token": token}))
    except urllib.error.HTTPError as error:
        if error.code == 404:  # nothing announced
            return None
        raise
    end = datetime.datetime.fromisoformat(told["time"])
    remaining_s = (end - datetime.datetime.now(datetime.UTC)).total_seconds()
    return Notice(f"AWS: {told['action']} at {told['time']}", max(0.0, remaining_s))


def gcp_notice(metadata_url: str = METADATA_URL) -> Notice | None:
    """The preemption that GCP has announced to this instance.

    Raises:
      OSError: the metadata service does not answer.
    """
    told = _fetch(f"{metadata_url}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return Notice("GCP: preempted", GCP_NOTICE_S) if told.strip() == "TRUE" else None


NOTICES: dict[str, Callable[[str], Notice | None]] = {"aws": aws_notice, "gcp": gcp_notice}


def this_node(address: str) -> tuple[str, str]:
    """(the id that the cluster at `address` knows this node by, the address of its control service)."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        context = ray.get_runtime_context()
        return context.get_node_id(), context.gcs_address
    finally:
        ray.shutdown()


def drain(notice: Notice, address: str = "auto", node_id: str | None = None) -> None:
    """Tells the cluster that this node, or `node_id`, goes.

    What `ray drain-node` does, which neither looks up its own node nor gives up when nobody answers.

    Raises:
      ConnectionError: the cluster does not answer, or does not take it.
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
        raise ConnectionError(f"the cluster at {address} does not drain {node_id}: {refusal}")


def watch(ask: Callable[[], Notice | None], act: Callable[[Notice], None], poll_s: float = POLL_S) -> Notice:
    """Asks until there is a notice, then acts on it once; what fails is logged, and tried again at the next turn.

    Returns:
      the notice that was acted on.
    """
    while True:
        try:
            notice = ask()
            if notice is not None:
                logger.warning("%s, %.0f s left: draining this node", notice.message, notice.remaining_s)
                act(notice)
                return notice
        except OSError as error:
            logger.warning("asking again in %g s: %s", poll_s, error)
        time.sleep(poll_s)


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str:
    # A proxy that the environment names must not be asked: the address means another machine there.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers, method=method)
    with opener.open(request, timeout=REQUEST_TIMEOUT_S) as answer:
        return answer.read().decode()
