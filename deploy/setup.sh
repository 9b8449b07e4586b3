#!/usr/bin/env bash
# Builds .venv from the pinned lists in deploy/requirements. Called by the Makefile, and by every target
# that needs the environment.
#
# A stamp inside .venv remembers what was installed, so a second call ends at once. An interrupted call is
# simply made again: what is already there is kept. pip resolves nothing here: the lists are complete and
# installed with --no-deps, so a machine without CUDA never gets CUDA packages by way of some requirement.
#
# From the environment:
#   PYTHON       interpreter the environment is made from (default python3.11)
#   VLLM         cpu | cuda: which inference engine; empty: cuda if nvidia-smi finds a device, else cpu
#   TORCH_INDEX  package index searched for torch as well (one with CPU builds); empty: pip's own settings
#   EXTRAS       "textworld": ALFWorld's reference engine as well; "dense": the dense retriever of Search QA
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
lists=deploy/requirements
venv=$root/.venv
log=$root/.venv/setup.log
PYTHON=${PYTHON:-python3.11}
choice=${VLLM:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off

say() { printf 'setup: %s\n' "$1"; }
fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

if [ -z "$choice" ]; then
    choice=cpu
    if timeout 20 nvidia-smi -L 2>/dev/null | grep -q GPU; then choice=cuda; fi
fi
case $choice in cpu | cuda) ;; *) fail "VLLM=$choice: must be cpu or cuda (or empty, to choose by nvidia-smi)" ;; esac
case ${EXTRAS:-} in "" | textworld | dense) ;; *) fail "EXTRAS=$EXTRAS: must be textworld, dense or empty" ;; esac

# The checkout's path is in the stamp because the environment holds it in its scripts.
inputs=("$lists"/*.txt deploy/setup.sh pyproject.toml)
stamp_of() { { echo "$choice $root"; cat "${inputs[@]}"; } | sha256sum | cut -d' ' -f1; }
stamp=$(stamp_of)
has_stamp() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/t2po-stamp" 2>/dev/null)" = "$stamp" ]; }
has_extra() { [ -z "${EXTRAS:-}" ] || [ -e "$venv/t2po-$EXTRAS" ]; }
if has_stamp && has_extra; then exit 0; fi

# One set-up at a time in a checkout.
if command -v flock >/dev/null 2>&1; then
    exec 9<deploy/setup.sh
    flock -w 1800 9 || fail "another set-up of $root has been running for 30 minutes: end it, then run make setup"
    if has_stamp && has_extra; then exit 0; fi
fi

command -v "$PYTHON" >/dev/null 2>&1 ||
    fail "$PYTHON is not installed: apt-get install python3.11 python3.11-venv, or make setup PYTHON=/path/to/python3.11"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$PYTHON does not start: make setup PYTHON=/path/to/python3.11"
[ "$version" = 3.11 ] || fail "$PYTHON is Python $version and 3.11 is needed: make setup PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$PYTHON has no venv module: apt-get install python3.11-venv"

need=6; [ "$choice" = cuda ] && need=20
if [ ! -d "$venv/lib" ]; then
    free=$(($(df -Pk "$root" | awk 'NR==2 {print $4}') / 1048576))
    [ "$free" -ge "$need" ] || fail "$root has $free GB free and the environment needs $need GB: free some space and run make setup again"
fi

started=$SECONDS
say "building .venv (Python $version, vLLM for $choice, $need GB at most); details in .venv/setup.log"
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix)' >/dev/null 2>&1; then
    "$PYTHON" -m venv --clear "$venv" || fail "$PYTHON -m venv $venv failed: see the lines above, then run make setup again"
fi
: >"$log"

# pip_install NAME DEADLINE_S ARGS...: one step; on failure one line says why, the log has the rest.
pip_install() {
    local name=$1 deadline=$2 rc=0
    shift 2
    timeout "$deadline" "$venv/bin/python" -m pip install "$@" >>"$log" 2>&1 || rc=$?
    [ "$rc" -eq 0 ] && return 0
    local why="see .venv/setup.log"
    if [ "$rc" -eq 124 ]; then why="no end after $deadline s: the registry is slow"
    elif tail -40 "$log" | grep -q 'No space left'; then why="the disk is full: free $need GB"
    elif tail -40 "$log" | grep -qE 'Max retries|ConnectionError|NewConnection|NameResolution|ProxyError|timed out|versions: none'; then
        why="the package registry cannot be reached: check the network and pip's settings (pip config list)"
    elif tail -40 "$log" | grep -q 'No matching distribution'; then
        why="the registry does not offer it: $(grep 'No matching' "$log" | tail -1 | sed 's/^ERROR: //')"
    elif tail -40 "$log" | grep -qE 'Failed building wheel|g\+\+|cmake'; then
        why="building it from source failed: apt-get install g++ make cmake"
    fi
    fail "installing $name failed: $why; then run make setup again, it goes on where it stopped"
}

torch_args=(-r "$lists/torch.txt")
[ -n "${TORCH_INDEX:-}" ] && torch_args+=(--extra-index-url "$TORCH_INDEX")
# The CPU build of torch needs no libraries besides Python packages; a CUDA build needs 3 GB of them.
if [ "$choice" = cpu ]; then
    pip_install "torch (looking it up)" 900 --dry-run --no-deps --report "$venv/torch.json" "${torch_args[@]}"
fi
if [ "$choice" = cuda ]; then
    pip_install torch 3600 --no-deps "${torch_args[@]}"
elif ! grep -qE '"(nvidia-|cuda-)' "$venv/torch.json"; then
    pip_install torch 1800 --no-deps "${torch_args[@]}"
else
    # Correct on a CPU as well, only large: a set-up that works beats one that asks for an index of CPU builds.
    say "the package index offers torch as a CUDA build, with 3 GB of libraries; TORCH_INDEX=URL of CPU builds saves them"
    pip_install torch 3600 "${torch_args[@]}"
fi
say "torch is in; now $(grep -c == "$lists/$choice.txt") packages, some minutes"
pip_install "the packages of $lists/$choice.txt" 3600 --no-deps -r "$lists/$choice.txt"
if [ -n "${EXTRAS:-}" ]; then
    pip_install "the extra $EXTRAS" 1800 --no-deps -r "$lists/$EXTRAS.txt"
    touch "$venv/t2po-$EXTRAS"
fi
pip_install "t2po itself" 300 --no-deps --no-build-isolation -e .
"$venv/bin/python" -c 'import torch' >>"$log" 2>&1 ||
    fail "torch is installed but cannot be imported (last line of .venv/setup.log): rm -rf .venv, then make setup"
echo "$stamp" >"$venv/t2po-stamp"
say "done in $((SECONDS - started)) s"
