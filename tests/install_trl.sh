#!/usr/bin/env bash
# An interpreter that has TRL beside the packages of this checkout's environment, for tests/recipes/test_trl_token_credit.py.
# Prints its path. The first call installs trl, datasets and pandas, about 300 MB; every later one finds the folder.
#
#   DGPO_TRL_HOME     the folder; default: ${XDG_CACHE_HOME:-~/.cache}/dgpo/trl-VERSION
#   PYTHON            the interpreter whose packages (torch, transformers, ...) are used; default: python3
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.16.0
home=${DGPO_TRL_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/dgpo/trl-$version}
python=${PYTHON:-python3}

mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9 # a second caller waits for the first, and finds what that one made
if [ ! -x "$home/bin/python" ]; then
    made=$(mktemp -d "$home.XXXXXX") # made beside its place and renamed, so that a folder of this name is always whole
    trap 'rm -rf "$made"' EXIT
    {
        "$python" -m venv --without-pip "$made"
        # Without what they need: that is there already, but for these.
        "$python" -m pip --python "$made/bin/python" install --quiet --no-deps "trl==$version" \
            "datasets>=4.7" dill multiprocess "pandas>=2.1.1" pytz
        mv --no-target-directory "$made" "$home"
    } >&2
fi
# The packages of the interpreter that asks, which another checkout may have elsewhere.
"$python" -c 'import site, sys; print("\n".join(path for path in sys.path if path.endswith("site-packages")))' \
    >"$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/_beside.pth"
echo "$home/bin/python"
