"""One place that decides what is said: quiet by default, in the driver and in every worker."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_QUIET_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "NONE",
    "GLOG_minloglevel": "3",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's old output can be switched off, the new one not
}


def quiet() -> None:
    """Keeps TensorFlow, gRPC and Ray from talking. Must run before they are imported; their log files stay complete.

    A value that is set in the environment already is left alone, so that a person can turn the chatter on.
    """
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("tensorflow", "absl", "ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray|keras|tensorflow")


def load_tensorflow() -> None:
    """Imports TensorFlow with stderr closed: a few of its start-up lines obey no setting."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
