# Shared by the scripts beside it: steps with timing, and a virtual environment of this clone.
# To be sourced. Needs bash, Python >= 3.11 and git; nothing else.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
started=$SECONDS

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND...: run it, print one line with its time; on failure its whole output, and stop.
step() {
    local name=$1 began=$SECONDS log
    shift
    log=$(mktemp)
    if "$@" > "$log" 2>&1 < /dev/null; then
        rm -f "$log"
        printf '  ok    %-28s %4d s\n' "$name" $((SECONDS - began))
    else
        cat "$log" >&2
        rm -f "$log"
        printf '  FAIL  %-28s %4d s\n' "$name" $((SECONDS - began)) >&2
        return 1
    fi
}

# A Python that is new enough: $PYTHON, or the first that fits.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or later found; install one, or name it: PYTHON=/path/to/python3 $0"
}

# setup_venv EXTRA: .venv with this clone installed in it ("dev" adds what the checks need, "" is
# enough to run), first on PATH. Made once; again when pyproject.toml changes or the clone moves.
setup_venv() {
    local extra=$1 python stamp
    unset PYTHONHOME PYTHONPATH
    stamp=.venv/${extra:-run}-$( (cat pyproject.toml && pwd) | git hash-object --stdin)
    if [ ! -e "$stamp" ]; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2> /dev/null ||
            fail "$python cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"
        step "make .venv" "$python" -m venv --clear .venv
        step "install into .venv" .venv/bin/python -m pip install -q --disable-pip-version-check \
            -e ".${extra:+[$extra]}"
        touch "$stamp"
        # Whoever can check can also run.
        touch ".venv/run-${stamp##*-}"
    fi
    PATH=$top/.venv/bin:$PATH
    export PATH
}
