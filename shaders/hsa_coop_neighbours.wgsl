// uses: lib/grid.wgsl, lib/four.wgsl, lib/hsa_softmax.wgsl, lib/hsa_stat.wgsl
// variants: D=64 | D=16 S=128 | S=32 G=2
// hsa_coop.wgsl for neighbours that select alike: a workgroup takes blocks of T · G tokens that all select the same chunks, G
// tiles of whose keys, then values, are loaded once for all of them. A subgroup loads one of the tiles and has T tokens of its
// own, whose scores and probabilities pass through memory as there: what a subgroup alone writes and reads waits for that
// subgroup alone. Other blocks are left to hsa_coop.wgsl.
const D: u32 = 32u;                                                   // head dim, a power of two from 16 on
const S: u32 = 64u;                                                   // chunk, a multiple of 16 · G
const G: u32 = 4u;                                                    // subgroups
const T: u32 = 2u;                                                    // tokens a subgroup
const BLOCK: u32 = T * G;
const WG: u32 = 32u * G;
const DT: u32 = D / 16u;                                              // tiles of dims; units a lane of 16 keys
const ST: u32 = S / 16u;
const E: u32 = D / 8u;                                                // a row in units of eight
const LINES: u32 = 32u / E;                                           // rows that the lanes load at once
const N: u32 = 2u * ST;                                               // quads of keys a lane
const ROW: u32 = 4u * T + 2u;                                         // of all tokens' 16 scores or probabilities, in fours: banks differ
const KROW: u32 = D / 4u + 2u;
const TILE: u32 = 16u * KROW;
struct Params {
    batches: u32, tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, off_by_one: u32, scale: f32,
    tiles: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, keys, heads, d), eights of f16
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read_write> o: array<vec4<f16>>;   // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;       // (batches, tokens, slots, query heads)
@group(0) @binding(8) var<storage, read_write> done: array<u32>;      // (batches, blocks, heads or 1): 1 where all select alike

var<workgroup> rows: array<vec4<f16>, G * TILE>;                      // G tiles of keys or values
var<workgroup> scores: array<vec4f, G * 16u * ROW>;                   // (subgroup, head, token, key); or 16 dims of the sums
var<workgroup> p: array<vec4<f16>, G * 16u * ROW>;                    // (subgroup, head, token, key), of one tile

// Where a tile has room to say whether the block that its subgroup looks at selects alike: with memory of its own for that, one
// workgroup would run where two do.
fn alike(tile: u32) -> u32 { return tile * TILE + D / 4u; }

// The part-th block that a workgroup looks at.
fn block_of(run: u32, part: u32, runs: u32) -> u32 { return part * runs + (run + part * (runs / (2u * G))) % runs; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                        // naga takes no call for uniform
    if unit >= params.groups { return; }                              // uniform
    let h = (unit / params.tiles) % params.heads;
    let run = unit / params.tiles / params.heads;
    let runs = params.groups / params.tiles / params.heads;
    let blocks = params.tokens / BLOCK;                               // of a sequence
    let by_head = select(params.heads, 1u, params.joint != 0u);
    let apart = by_head * params.slots;
    let head_at = select(h * params.slots, 0u, params.joint != 0u);
    // Each subgroup looks at a block. Those of a workgroup lie far apart, and not in the same place of other sequences: where
    // neighbours select alike, so do theirs, and workgroups should have as much to do.
    let all_blocks = params.batches * blocks;
    let place = block_of(run, subgroup, runs);
    let looked = min(place, all_blocks - 1u);
    let looked_at = (looked / blocks * params.tokens + looked % blocks * BLOCK) * apart + head_at;
    var differ = false;
    for (var i = lane; i < (BLOCK - 1u) * params.slots; i += 32u) {
        let at = looked_at + i % params.slots;
        differ = differ || indices[at] != indices[at + (1u + i / params.slots) * apart];
    }
    let same = !subgroupAny(differ);
    if lane == 0u {
        rows[alike(subgroup)] = vec4<f16>(f16(u32(same && place < all_blocks)));
        if place < all_blocks && unit % params.tiles == 0u && (h == 0u || params.joint == 0u) {
            done[looked * by_head + select(h, 0u, params.joint != 0u)] = u32(same);
        }
    }
    let share = params.query_heads / params.heads;
    let stride = params.heads * E;
    let step = LINES * stride;
    let to = subgroup * TILE + lane / E * KROW + lane % E * 2u;
    let row = lane / 2u;
    let side = lane % 2u;
    let own = subgroup * 16u * ROW;
    let own1 = own + 4u;
    for (var r = 0u; r < G; r++) {
        if workgroupUniformLoad(&rows[alike(r)]).x != 0.0h {
            let block = block_of(run, r, runs);
            let b = block / blocks;
            let first = b * params.tokens + block % blocks * BLOCK;   // over batches
            let chosen = first * apart + head_at;
            let token = first + subgroup * T;
            let row0 = token * params.query_heads + h * share + (unit % params.tiles) * 16u;
            let row1 = row0 + params.query_heads;
            let weights_at = token * apart + head_at;
            let origin = (b * params.keys * params.heads + h) * E + lane / E * stride + lane % E + subgroup * DT * step;
            var from_ = origin + indices[chosen] * S * stride;
            // A tile of each G; values take the places of keys, and keys of values.
            var next: array<vec4u, ST / G * DT>;
            for (var t = 0u; t < ST / G; t++) { // unroll
                for (var u = 0u; u < DT; u++) { next[t * DT + u] = k[from_ + (t * G * DT + u) * step]; } // unroll
            }
            var queries: array<coop_mat16x16<f16, A>, DT>;
            var queries1: array<coop_mat16x16<f16, A>, DT>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = row0 * D + c * 16u;
                let at1 = row1 * D + c * 16u;
                queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
                queries1[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at1], D);
            }
            var sum: array<coop_mat16x16<f32, C>, DT>;
            var sum1: array<coop_mat16x16<f32, C>, DT>;
            for (var slot = 0u; slot < params.slots; slot++) {
                let weight = weights[weights_at + slot];
                let weight1 = weights[weights_at + apart + slot];
                let coming = origin + indices[chosen + min(slot + 1u, params.slots - 1u)] * S * stride;
                var e: array<vec4f, N>;
                var e1: array<vec4f, N>;
                for (var t = 0u; t < ST / G; t++) { // unroll
                    for (var u = 0u; u < DT; u++) { // unroll
                        rows[to + u * LINES * KROW] = four(next[t * DT + u].xy);
                        rows[to + u * LINES * KROW + 1u] = four(next[t * DT + u].zw);
                    }
                    for (var u = 0u; u < DT; u++) { next[t * DT + u] = v[from_ + (t * G * DT + u) * step]; } // unroll
                    workgroupBarrier();
                    for (var g = 0u; g < G; g++) { // unroll
                        var s: coop_mat16x16<f32, C>;
                        var s1: coop_mat16x16<f32, C>;
                        for (var c = 0u; c < DT; c++) { // unroll
                            let at = g * TILE + c * 4u;
                            let keys = coopLoad<coop_mat16x16<f16, B>>(&rows[at], KROW);
                            s = coopMultiplyAdd(queries[c], keys, s);
                            s1 = coopMultiplyAdd(queries1[c], keys, s1);
                        }
                        coopStoreT(s, &scores[own], ROW);
                        coopStoreT(s1, &scores[own1], ROW);
                        // After the last of the keys come others' values.
                        if g + 1u < G { subgroupBarrier(); } else { workgroupBarrier(); }
                        for (var i = 0u; i < 2u; i++) { // unroll
                            e[2u * (t * G + g) + i] = scores[own + row * ROW + 2u * i + side];
                            e1[2u * (t * G + g) + i] = scores[own1 + row * ROW + 2u * i + side];
                        }
                        if g + 1u < G { subgroupBarrier(); }
                    }
                }
                let all = softmax(&e);
                let all1 = softmax(&e1);
                let factor = weight / all.x;
                let factor1 = weight1 / all1.x;
                if side == 0u {
                    lse[stat_of(token, slot, row0 + row)] = all.y + log(all.x);
                    lse[stat_of(token + 1u, slot, row1 + row)] = all1.y + log(all1.x);
                }
                for (var t = 0u; t < ST / G; t++) { // unroll
                    for (var u = 0u; u < DT; u++) { // unroll
                        rows[to + u * LINES * KROW] = four(next[t * DT + u].xy);
                        rows[to + u * LINES * KROW + 1u] = four(next[t * DT + u].zw);
                    }
                    for (var u = 0u; u < DT; u++) { next[t * DT + u] = k[coming + (t * G * DT + u) * step]; } // unroll
                    for (var g = 0u; g < G; g++) { // unroll
                        for (var i = 0u; i < 2u; i++) { // unroll
                            p[own + row * ROW + 2u * i + side] = vec4<f16>(e[2u * (t * G + g) + i] * factor);
                            p[own1 + row * ROW + 2u * i + side] = vec4<f16>(e1[2u * (t * G + g) + i] * factor1);
                        }
                        if g == 0u { workgroupBarrier(); } else { subgroupBarrier(); }
                        let left = coopLoadT<coop_mat16x16<f16, A>>(&p[own], ROW);
                        let left1 = coopLoadT<coop_mat16x16<f16, A>>(&p[own1], ROW);
                        for (var c = 0u; c < DT; c++) { // unroll
                            let at = g * TILE + c * 4u;
                            let values = coopLoadT<coop_mat16x16<f16, B>>(&rows[at], KROW);
                            sum[c] = coopMultiplyAdd(left, values, sum[c]);
                            sum1[c] = coopMultiplyAdd(left1, values, sum1[c]);
                        }
                        if g + 1u < G { subgroupBarrier(); } else { workgroupBarrier(); }
                    }
                }
                from_ = coming;
            }
            for (var c = 0u; c < DT; c++) { // unroll
                let tile = sum[c];
                let tile1 = sum1[c];
                coopStoreT(tile, &scores[own], ROW);
                coopStoreT(tile1, &scores[own1], ROW);
                subgroupBarrier();
                for (var i = 0u; i < 2u; i++) { // unroll
                    let quad = 2u * i + side;
                    o[(row0 + row) * (D / 4u) + c * 4u + quad] = vec4<f16>(scores[own + row * ROW + quad]);
                    o[(row1 + row) * (D / 4u) + c * 4u + quad] = vec4<f16>(scores[own1 + row * ROW + quad]);
                }
                subgroupBarrier();
            }
        }
    }
}
