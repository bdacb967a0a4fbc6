// uses: lib/ssd_chunk_states.wgsl, lib/ssd_sums.wgsl
// variants: REVERSE=1
// lib/ssd_chunk_states.wgsl in chunks of 16 tokens: holds the text that ssd_coop_states.wgsl shares to its reference.
alias four = vec4<f16>;
const T: u32 = 16u;
const WG: u32 = 64u;
const REVERSE: u32 = 0u;
