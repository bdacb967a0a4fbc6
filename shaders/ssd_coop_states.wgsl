// uses: lib/ssd_chunk_states.wgsl, lib/ssd_sums_coop.wgsl
// variants: REVERSE=1 | NT=1 | WHOLE=1 REVERSE=1 | WG=512 COLUMNS=64 WIDE=2 | WG=512 COLUMNS=64 WIDE=2 WHOLE=1
// lib/ssd_chunk_states.wgsl in chunks of 64 tokens on cooperative matrices.
alias four = vec4<f16>;
const T: u32 = 64u;
const WG: u32 = 256u;
// Columns of results a turn through the stage.
const COLUMNS: u32 = 16u;
const REVERSE: u32 = 0u;
// Tiles of state dims.
const NT: u32 = 2u;
