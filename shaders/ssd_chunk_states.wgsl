// uses: lib/ssd_chunk_states.wgsl, lib/ssd_sums.wgsl
// variants: REVERSE=1
// lib/ssd_chunk_states.wgsl in chunks of 16 tokens: holds the text that ssd_coop_states.wgsl shares to its reference.
alias four = vec4<f16>;
const T: u32 = 16u;
const WG: u32 = 64u;
// Columns of results a turn through the stage.
const COLUMNS: u32 = 16u;
const REVERSE: u32 = 0u;
// Tiles of state dims.
const NT: u32 = 2u;
