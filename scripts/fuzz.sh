#!/usr/bin/env bash
# Runs each fuzz target for so many seconds (60) on the seeds and on what earlier runs found.
set -euo pipefail
cd "$(dirname "$0")/../crates/fuzz"
seconds=${1:-60}

cargo +nightly fuzz --version >/dev/null 2>&1 || {
	echo "missing: cargo-fuzz under a nightly Rust" >&2
	echo "install: rustup toolchain install nightly && cargo +nightly install cargo-fuzz" >&2
	exit 1
}
for target in fuzz_targets/*.rs; do
	name=$(basename "$target" .rs)
	mkdir -p "corpus/$name"
	echo "== $name, $seconds s"
	cargo +nightly fuzz run --fuzz-dir . "$name" "corpus/$name" "seeds/$name" -- -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -print_final_stats=1
done
