// uses: lib/ssd_chunk_groups.wgsl, lib/ssd_sums_coop.wgsl
// variants: CARRY=1
// lib/ssd_chunk_groups.wgsl in chunks of 64 tokens on cooperative matrices.
alias four = vec4<f16>;
const T: u32 = 64u;
const WG: u32 = 256u;
