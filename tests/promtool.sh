#!/bin/sh
# Runs promtool's linter over a scrape of /metrics on standard input. Debian has it in the package prometheus.
set -eu
if ! command -v promtool >/dev/null; then
    echo 'skipped: promtool is not installed'
    exit 0
fi
exec promtool check metrics
