// uses: lib/ssd_chunk_output.wgsl, lib/ssd_sums_coop.wgsl
// variants: CARRY=1 | NT=1 | NT=4 CARRY=1 | WHOLE=1 CARRY=1
// lib/ssd_chunk_output.wgsl in chunks of 64 tokens on cooperative matrices.
alias four = vec4<f16>;
const T: u32 = 64u;
const WG: u32 = 128u;
// Columns of results a turn through the stage.
const COLUMNS: u32 = 16u;
// Tiles of state dims.
const NT: u32 = 2u;
