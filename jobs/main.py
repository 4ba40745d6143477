"""The `textscanner` command: `textscanner VERB ...` runs the `main` of the verb's module in `jobs/`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

import textscanner
from jobs.cli import cli_errors

# Each verb is the module of that name in jobs/, imported only when it is chosen: some load TensorFlow or Ray.
VERBS = {
    "quickstart": "render words, train on two workers, read unseen words",
    "read": "read images that show one word each",
    "train": "train or fine-tune a model over one or more workers",
    "tune": "search hyperparameters",
    "pull": "download a run's best checkpoint",
    "evaluate": "score a checkpoint on data sets",
    "export": "write a checkpoint as ONNX, SavedModel or LiteRT",
    "prepare": "convert labelled images to a data set",
    "render": "render synthetic words to a data set",
    "label": "add character boxes to a data set with a trained model",
    "preflight": "check nodes, storage, data and network before a long run",
    "objectstore": "start or stop a local S3 server",
    "watch-spot": "drain this node when the cloud reclaims it",
    "bench": "measure throughput on this machine",
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{summary}" for verb, summary in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="textscanner",
        description="Trains scene-text recognition on Ray clusters, and reads text with the models.",
        usage="%(prog)s [-h] [--version] VERB ...",
        epilog=f"verbs:\n{verbs}\n\ntextscanner VERB --help shows the arguments of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"textscanner {textscanner.__version__}")
    parser.add_argument("verb", metavar="VERB", help="what to do; one of the verbs below")
    return parser


@cli_errors(_parser)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb with the arguments after it; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    verb = parser.parse_args(arguments[:1]).verb
    if verb not in VERBS:
        similar = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"choose from {', '.join(VERBS)}"
        parser.error(f"there is no verb {verb!r}: {hint}")
    module = importlib.import_module(f"jobs.{verb.replace('-', '_')}")
    return int(module.main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
