"""Progress of a run on the driver: a tqdm bar on a terminal, one line per 10 % of the steps in a log file.

Rank 0 sends its figures to a small actor, which the driver polls. The output of the workers themselves goes to Ray's
log files, so a run without problems prints little else.
"""

from __future__ import annotations

import logging
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import ray
import ray.train
import tqdm
from ray.train.v2._internal.execution.callback import WorkerGroupCallback  # Ray's hooks; exported nowhere else
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.progress_bar import LineIntervals

POLL_S = 0.5
ACTOR_TIMEOUT_S = 5.0
LAST_FETCH_ATTEMPTS = 3

logger = logging.getLogger(__name__)

Progress = dict[str, float]
"""Newest step metrics: `step`, `loss`, `images_per_s`, `data_wait_fraction`, `global_batch_size`. Before the first log
of an attempt only `step`, and `starting` until the model is restored; empty while no worker runs."""

CheckpointReport = dict[str, Any]
"""A complete checkpoint in storage: `step`, `checkpoint` (its URI) and its validation metrics, if it was validated."""

Listener = Callable[[Progress, list[CheckpointReport]], None]
"""Called from a thread of the driver, with the newest progress and the checkpoints since the last call."""


class Delivery(NamedTuple):
    """What the driver fetches: the newest progress, and the messages and checkpoints that it has not acknowledged."""

    progress: Progress
    messages: list[str]
    checkpoints: list[CheckpointReport]
    token: str


@ray.remote(num_cpus=0, max_restarts=-1)
class ProgressActor:
    """Buffers what rank 0 sends until the driver has it."""

    def __init__(self) -> None:
        self._progress: Progress = {}
        self._messages: list[str] = []
        self._checkpoints: list[CheckpointReport] = []
        self._last = Delivery({}, [], [], "")

    def set_progress(self, progress: Progress) -> None:
        self._progress = progress

    def add_message(self, message: str) -> None:
        self._messages.append(message)

    def add_checkpoint(self, checkpoint: CheckpointReport) -> None:
        self._checkpoints.append(checkpoint)

    def fetch(self, received: str = "") -> Delivery:
        """Returns all that is new.

        Args:
          received: token of the last delivery that has arrived; what is not known to have arrived is delivered again.
        """
        if received == self._last.token:
            del self._messages[: len(self._last.messages)]
            del self._checkpoints[: len(self._last.checkpoints)]
        self._last = Delivery(self._progress, self._messages.copy(), self._checkpoints.copy(), uuid.uuid4().hex)
        return self._last


def start_progress_actor() -> Any:
    """Starts an actor on this process's node, whose loss ends the run anyway; elsewhere a spot node could take it."""
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressActor.options(scheduling_strategy=node).remote()  # type: ignore[attr-defined]


def notify(method: Any, *arguments: Any, wait: bool = False) -> None:
    """Calls a method of a `ProgressActor`. Without effect if the actor is lost or does not answer: neither a step nor
    an upload may depend on the display.

    Args:
      wait: whether to wait until the actor has it, at most ACTOR_TIMEOUT_S: this process may end next.
    """
    try:
        reply = method.remote(*arguments)
        if wait:
            ray.get(reply, timeout=ACTOR_TIMEOUT_S)
    except Exception as error:
        logger.warning("the driver's progress actor does not answer: %s", error)


class ClearProgress(WorkerGroupCallback):
    """Ray Train's callback in its controller: when workers fail or end, there is no progress until others run.

    Args:
      actor: handle of the run's `ProgressActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Called every few seconds while workers run."""
        if worker_group_status.errors:
            notify(self._actor.set_progress, {})

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Called before nodes are awaited. Workers of a node whose preemption was announced end without an error."""
        notify(self._actor.set_progress, {})


class ProgressBar:
    """Context manager on the driver: prints progress and messages while a run lasts.

    Args:
      actor: handle of the run's `ProgressActor`.
      num_steps: the run's last step.
      listener: also receives progress and checkpoints.
    """

    def __init__(self, actor: Any, num_steps: int, listener: Listener | None = None) -> None:
        self._actor = actor
        self._listener = listener
        self._received = ""  # token of the last delivery
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=num_steps, unit="step", file=sys.stderr, disable=not self._is_terminal, dynamic_ncols=True
        )
        self._line_intervals = LineIntervals(num_steps, first_percent=0)  # the first step has a line in any case
        self._last_line_step = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> ProgressBar:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        # What came after the last poll. With stalls of the node, one attempt may time out.
        any(self._update() for _ in range(LAST_FETCH_ATTEMPTS))
        self._bar.close()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            self._update()

    def _update(self) -> bool:
        """Fetches and shows what is new; returns whether the actor answered."""
        try:
            delivery = ray.get(self._actor.fetch.remote(self._received), timeout=ACTOR_TIMEOUT_S)
        except Exception:  # training does not depend on the actor: without it, only the display is missing
            return False
        self._received = delivery.token
        if self._listener:
            self._listener(delivery.progress, delivery.checkpoints)
        for message in delivery.messages:
            tqdm.tqdm.write(message, file=sys.stderr)
        if "loss" in delivery.progress:
            self._print_progress(delivery.progress)
        return True

    def _print_progress(self, progress: Progress) -> None:
        step, num_steps = int(progress["step"]), self._bar.total
        metrics = (
            f"loss {progress['loss']:.3f}  {progress['images_per_s']:.0f} images/s  "
            f"data wait {progress['data_wait_fraction']:.0%}"
        )
        if self._is_terminal:
            self._bar.initial = self._bar.initial or step  # a resumed run: tqdm's rate counts from here
            self._bar.n = step
            self._bar.set_postfix_str(metrics, refresh=True)
            return
        if step > self._last_line_step and self._line_intervals.is_due(step):
            remaining_s = (num_steps - step) * progress["global_batch_size"] / max(progress["images_per_s"], 1e-9)
            print(f"step {step}/{num_steps}  {metrics}  {remaining_s / 60:.0f} min left", file=sys.stderr, flush=True)
            self._last_line_step = step
