#!/usr/bin/env bash
# `make fuzz`: fuzz.sh SECONDS, shared out among the instruction sets this CPU has.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/native/common.sh
build address address,undefined

mkdir -p build/fuzz/corpus build/fuzz/found
isas=($(instruction_sets))
for isa in "${isas[@]}"; do
  # What one instruction set's run has reached, the next begins with. What ends a run is kept in
  # build/fuzz/found: NORMKIT_CPU=$isa build/address/tests/native/fuzz FILE shows it again.
  NORMKIT_CPU=$isa build/address/tests/native/fuzz build/fuzz/corpus \
    -max_total_time=$(($1 / ${#isas[@]})) -max_len=4096 -timeout=60 -rss_limit_mb=4096 \
    -artifact_prefix=build/fuzz/found/ -print_final_stats=1 >build/fuzz/log 2>&1 ||
    { tail -60 build/fuzz/log; exit 1; }
  echo "fuzz: $isa, $(sed -n 's/^stat::number_of_executed_units: *//p' build/fuzz/log) runs," \
    "$(grep -o 'cov: [0-9]* ft: [0-9]*' build/fuzz/log | tail -1)"
done
echo "make fuzz: clean, $1 s on ${isas[*]}"
