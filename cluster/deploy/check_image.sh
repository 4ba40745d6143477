#!/usr/bin/env bash
# Runs the file and pip steps of cluster/deploy/Dockerfile in a fresh folder and environment, without Docker.
#
#   cluster/deploy/check_image.sh       # the image with CUDA: downloads about 3 GB, needs 12 GB of disk until it ends
#   cluster/deploy/check_image.sh cpu   # the image without CUDA
#
# The steps are read from the Dockerfile, so they cannot diverge from it. System packages are not installed.
set -euo pipefail
target=${1:-gpu}
project=$(cd "$(dirname "$0")/../.." && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# COPY lines, and RUN lines that call python or pip, of the stage "dependencies" and of the target's own stage.
steps=$(awk -v target="$target" '
    /^FROM/ { in_stage = ($NF == "dependencies" || $NF == target) }
    in_stage && (/^COPY/ || /^RUN (python|pip)/)' "$project/cluster/deploy/Dockerfile")

mkdir "$root/textscanner"
cd "$root/textscanner"
export PATH="$root/venv/bin:$PATH"
while read -r instruction rest; do
    echo ">> $instruction $rest"
    if [ "$instruction" = RUN ]; then
        bash -euc "${rest//\/home\/ray/$root}" </dev/null
    elif [ "$rest" = "--chown=1000:1000 . ./" ]; then
        # The files that .dockerignore does not exclude.
        sed -n 's/^!//p' "$project/.dockerignore" | while read -r name; do cp -r "$project/$name" .; done
    else
        read -r _ source destination <<<"$rest"
        mkdir -p "$destination"
        cp "$project/$source" "$destination"
    fi
done <<<"$steps"

echo ">> checking the installed packages"
pip check
cd /
ray --version
python -c 'import textscanner; print("package", textscanner.__file__)'
python -c '
from cluster.logs import load_tensorflow
load_tensorflow()
import tensorflow as tf
print("TensorFlow", tf.__version__, "built with CUDA:", tf.test.is_built_with_cuda())'
python -m jobs.train --help >/dev/null
python -m jobs.watch_spot --help >/dev/null
echo "the steps of the image '$target' work"
