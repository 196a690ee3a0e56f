#!/usr/bin/env bash
# Brings .venv up to date with pyproject.toml and constraints.txt. Run it as often as you like: it does what is missing, also after a run
# that was interrupted.
#
#   PYTHON=/path/to/python3.11   which Python to use
#   TORCH_INDEX=ADDRESS          where torch and torchvision come from, such as PyTorch's index of CPU builds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

exec 9<environment.sh
flock 9 # a second `make` at the same time waits for this one

site=.venv/lib/python3.11/site-packages
stamp=.venv/tricorpus-environment

can_apt_get() { [[ $EUID == 0 ]] && command -v apt-get >/dev/null; }

sorry() { printf '\nmake env: %s\n' "$@" >&2; exit 1; }

is_python_3_11() { command -v "$1" >/dev/null && "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

find_python() { # sets `python`
    for python in ${PYTHON:-python3.11 python3}; do
        if is_python_3_11 "$python"; then return 0; fi
    done
    return 1
}

get_python() {
    find_python && return
    [[ -z "${PYTHON:-}" ]] || sorry "PYTHON=$PYTHON is not a Python 3.11 with venv."
    if can_apt_get; then
        apt-get update -qq
        apt-get install -y python3.11 python3.11-venv && find_python && return
    fi
    sorry "there is no Python 3.11 with venv (Blender's package bpy exists for no other). On Debian 12 or Ubuntu 22.04 type
    sudo apt-get install -y python3.11 python3.11-venv
and elsewhere, with uv,
    uv python install 3.11 && make env PYTHON=\"\$(uv python find 3.11)\""
}

get_system_libraries() { # those that bpy and open3d load
    local packages
    packages=$("$1" -m jobs.system_libraries)
    [[ -n "$packages" ]] || return 0
    if can_apt_get; then
        apt-get update -qq
        apt-get install -y --no-install-recommends $packages
        packages=$("$1" -m jobs.system_libraries)
    fi
    [[ -z "$packages" ]] || sorry "system libraries that Blender and Open3D load are missing. On Debian or Ubuntu type
    sudo apt-get install -y $(echo $packages)
and make env again."
}

# A package whose files are not all there, as its RECORD names them, counts as not installed: what a killed pip leaves behind.
drop_broken_packages() {
    "$python" - "$site" <<'PYTHON'
import csv, pathlib, shutil, sys

site = pathlib.Path(sys.argv[1])
whole = lambda path, size: (site / path).exists() and (not size or (site / path).stat().st_size == int(size))
for info in site.glob("*.dist-info"):
    record = info / "RECORD"
    if not record.exists() or not all(whole(path, size) for path, _, size in csv.reader(record.open()) if not path.endswith(".pyc")):
        print(f"make env: {info.name} is incomplete, installing it again")
        shutil.rmtree(info)
for rest in site.glob("~*"):  # where pip keeps what it is about to replace
    shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
PYTHON
}

# Builds from PyTorch's own indexes carry a label, as in torch-2.15.0+cpu. One from PyPI gives way as a whole, with its nvidia-* packages.
if [[ -n "${TORCH_INDEX:-}" ]] && compgen -G "$site/torch-*.dist-info" >/dev/null && ! compgen -G "$site/torch-*+*.dist-info" >/dev/null; then
    rm -rf .venv
fi

state=$({ pwd; cat pyproject.toml constraints.txt; } | sha256sum)
if [[ "$(cat $stamp 2>/dev/null)" == "$state" ]] && .venv/bin/python -c '' 2>/dev/null; then
    get_system_libraries .venv/bin/python
    exit 0
fi

get_python
get_system_libraries "$python"
rm -f $stamp
if ! { .venv/bin/python -m pip --version && is_python_3_11 .venv/bin/python; } >/dev/null 2>&1; then
    "$python" -m venv --clear .venv
fi
drop_broken_packages
if [[ -n "${TORCH_INDEX:-}" ]]; then
    .venv/bin/python -m pip install --no-deps --index-url "$TORCH_INDEX" $(grep -E '^(torch|torchvision)==' constraints.txt)
fi
echo "make env: installing the packages of constraints.txt into .venv (about 8.5 GB with CUDA's; some minutes)"
.venv/bin/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
echo "$state" >$stamp
