#!/usr/bin/env bash
# Does what cluster/deploy/Dockerfile does with files and pip, in a fresh folder and environment, where no Docker is at hand.
#
#   cluster/deploy/check_image.sh         # the image with CUDA: downloads about 3 GB, needs 12 GB of disk, removed at the end
#   cluster/deploy/check_image.sh cpu     # the image without
#
# The steps are read out of the Dockerfile, so that they cannot drift apart. The system's packages are not installed.
set -euo pipefail
target=${1:-gpu}
project=$(cd "$(dirname "$0")/../.." && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# The stage "dependencies" and the target's own: their COPY lines, and the RUN lines that call python or pip.
steps=$(awk -v target="$target" '
    /^FROM/ { wanted = ($NF == "dependencies" || $NF == target) }
    wanted && (/^COPY/ || /^RUN (python|pip)/)' "$project/cluster/deploy/Dockerfile")

mkdir "$root/textscanner"
cd "$root/textscanner"
export PATH="$root/venv/bin:$PATH"
while read -r instruction rest; do
    echo ">> $instruction $rest"
    if [ "$instruction" = RUN ]; then
        bash -euc "${rest//\/home\/ray/$root}" </dev/null
    elif [ "$rest" = "--chown=1000:1000 . ./" ]; then
        # What .dockerignore lets through.
        sed -n 's/^!//p' "$project/.dockerignore" | while read -r name; do cp -r "$project/$name" .; done
    else
        read -r _ source destination <<<"$rest"
        mkdir -p "$destination"
        cp "$project/$source" "$destination"
    fi
done <<<"$steps"

echo ">> what was installed works"
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
