#!/bin/sh
# From night to morning: a live run, a person's labels, the cut, the network behind its gate, and the swap in the
# service that runs on; then another night, to see what it was worth. It ends by itself and leaves nothing behind.
#
#   sh deploy/examples/night.sh        from the folder of a checkout after `make demo`
#
# The microscope is a simulated laboratory and the person knows its truth; with yours the other lines are the same.
# CURVES=500 makes both nights short; LEARN="--events 20 --simulate 200 --epochs 1" lets it learn from so few.
set -eu
python=${PYTHON:-.venv/bin/python} curves=${CURVES:-2000} learn=${LEARN:-}
night=$(mktemp -d)
afm() { "$python" -m daemon "$@" --state "$night/state"; }
does() { printf '\n$ afm-triage %s\n' "$*"; afm "$@"; }
port() { "$python" -c 'from daemon.client.service_file import free_port; print(f"tcp://127.0.0.1:{free_port()}")'; }
measure() { # a night's curves, and a wait until each of them has its decision
    "$python" -m tests.studies.laboratories --into "$night/afm" --truth "$night/truth.csv" --laboratory 5 --prevalence 0.08 \
        --night "$1" --curves "$curves"
    until [ "$(afm events --since 0 | wc -l)" -ge $(($1 * curves)) ]; do kill -0 "$service"; sleep 1; done
}
say() { # what a person says who looks at all that was kept or sent to review
    for verdict in keep review; do afm events --since 0 --verdict $verdict; done >"$night/shown.jsonl"
    sed 's/.*"path":"\([^"]*\)".*/\1,/' "$night/shown.jsonl" >"$night/shown"
    { head -n 1 "$night/truth.csv"; grep -F -f "$night/shown" "$night/truth.csv"; } >"$night/labels.csv"
    does labels import "$night/labels.csv" --rater you
}
trap 'afm stop >"$night/log" 2>&1; rm -rf "$night"' EXIT
trap 'exit 130' INT TERM

mkdir "$night/afm"
afm run --watch "$night/afm" --metrics-port 0 --publish "$(port)" --replay "$(port)" 2>"$night/log" &
service=$!
until afm status >"$night/told" 2>&1; do kill -0 $service || cat "$night/log" >&2; sleep 0.2; done

does session begin --sample titin --name "first night"
measure 1
say
does adapt
# shellcheck disable=SC2086 # several words
does finetune $learn
does models list
does session begin --sample titin --name "second night"
measure 2
say
does session show
does status
