// uses: lib/ssd_chunk_output.wgsl, lib/ssd_sums.wgsl
// variants: four=vec4<f16>
// lib/ssd_chunk_output.wgsl in chunks of 16 tokens: holds the text that ssd_coop_output.wgsl shares to its reference.
alias four = vec4<f32>;
const T: u32 = 16u;
const WG: u32 = 32u;
