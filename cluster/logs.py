"""Quiet logging by default, in the driver and in every worker."""

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
    "RAY_AIR_NEW_OUTPUT": "0",  # of Tune's two output formats, only the old one can be switched off
}


def quiet() -> None:
    """Silences TensorFlow, gRPC and Ray on the terminal; their log files stay complete.

    Must run before they are imported. Variables that are already set keep their values, so that a user can turn the
    output on.
    """
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in ("tensorflow", "absl", "ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray|keras|tensorflow")


def load_tensorflow() -> None:
    """Imports TensorFlow with stderr redirected to /dev/null: some of its start-up lines ignore every log setting."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)
        os.close(devnull)
