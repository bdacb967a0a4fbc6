#!/usr/bin/env bash
# One session of measuring: each candidate after the kernels as they are, which come once more at the end.
# ./lab.sh [PART OF A NAME…]; to be removed with engine/src/lab.rs.
cd "$(dirname "$0")" || exit 1
out=${OUT:-/tmp}/lab.jsonl
one() { # filter, candidate
    local lines
    lines=$(env ${2:+$2} target/release/rambutan bench "$1" --json) || true
    printf '%s\n' "$lines" | sed "s/^{/{\"lab\":\"${2:-as it is}\",/" >>"$out"
    printf '%s\n' "$lines" | grep '"row"' | while read -r line; do
        row=$(grep -o '"row":"[^"]*"' <<<"$line" | cut -d'"' -f4)
        case $row in *backward | *both) continue ;; esac
        ms=$(grep -o '"ms":[0-9.e-]*' <<<"$line" | cut -d: -f2)
        kernels=$(grep -o '"kernels_ms":{[^}]*}' <<<"$line" | cut -d: -f2-)
        printf '%-32s %-46s %s %s\n' "$row" "${2:-as it is}" "${ms:-$(grep -oE '"(wrong|skipped)":"[^"]*"' <<<"$line")}" "$kernels"
    done
}
row() { # filter, candidates
    local filter=$1
    shift
    [ -z "$wanted" ] || grep -qE "$wanted" <<<"$filter" || return
    one "$filter" ""
    for candidate in "$@"; do one "$filter" "$candidate"; done
    one "$filter" ""
}
wanted=$(IFS='|'; echo "$*")
L=RAMBUTAN_LAB
row top_k.8 ${L}_TOPK=4 ${L}_TOPK=8 ${L}_TOPK=2 ${L}_TOPK=1
row select.question ${L}_SELECT=2 ${L}_SELECT=4 ${L}_SELECT=8 ${L}_SELECT=2,64,64,128 ${L}_SELECT=4,64,64,128 "${L}_MERGE=1 ${L}_SELECT=4" "${L}_MERGE=1 ${L}_SELECT=4,64,64,128"
row sum.64M ${L}_SUM=4 ${L}_CONST=1 "${L}_CONST=1 ${L}_SUM=4"
row cumulative_sum.4096 ${L}_CONST=1 ${L}_TEAMS=4 "${L}_CONST=1 ${L}_TEAMS=2" "${L}_CONST=1 ${L}_TEAMS=4"
row rms_norm.f32 ${L}_CONST=1
row gather.16384 ${L}_CONST=1
row matmul.f16.1024 ${L}_COOP=2 ${L}_COOP=3
row hsa.shared16.8x4096 ${L}_HSA=6,2,1 ${L}_HSA=4,4,1 ${L}_HSA=4,2,1 ${L}_HSA=6,2,2 ${L}_HSA=4,2,2 ${L}_HSA=4,1,2
row hsa.random.8x4096 ${L}_HSA=4,2,1 ${L}_HSA=6,2,2
