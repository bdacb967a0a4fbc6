// uses: lib/hsa_tile.wgsl, lib/hsa_stat.wgsl
// variants: elem=f16 | D4=4 S=16 KT=16 | D4=16 KT=32 QG=2 | D4=32 KT=16 QG=2 | QG=1
// Per slot, with p the softmax and o_i its output: D_i = do · o_i, ds = weight · p · (do · v − D_i), dq += ds · k / √d.
// (lse, D_i) is kept for the keys' pass; D_i summed over a head's queries is the weight's gradient.
// One workgroup a (token, head, tile of its query heads).
alias elem = f32;
const D4: u32 = 8u;                                                   // head dim / 4
const S: u32 = 64u;                                                   // chunk
const QG: u32 = 4u;                                                   // query heads a tile / 4
const KT: u32 = 32u;                                                  // keys staged at a time
const SETS: u32 = 2u;                                                 // q, do
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, scale: f32, tiles: u32, groups: u32,
    values: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // values: where v begins in kv, in vectors
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> kv: array<vec4<elem>>;       // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(4) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, tokens, slots, query heads)
@group(0) @binding(6) var<storage, read> dout: array<vec4<elem>>;     // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<elem>>; // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;   // (batches, tokens, slots, query heads): lse, D_i

fn stage(first: u32, t: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < KT * D4; i += WG) {
        let j = t * KT + i / D4;
        if j < S { tile[i / D4 * ROW + i % D4] = vec4f(kv[first + j * params.heads * D4 + i % D4]); }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let h = (index / params.tiles) % params.heads;
    let token = index / params.tiles / params.heads;                  // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let q0 = (index % params.tiles) * 4u * QG;
    let live = min(4u * QG, share - q0);
    let row0 = token * params.query_heads + h * share + q0;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    for (var i = lane; i < UNITS; i += WG) {
        var x = mat4x4f();
        var y = mat4x4f();
        for (var r = 0u; r < 4u; r++) {
            let row = i / D4 * 4u + r;
            if row < live {
                x[r] = vec4f(q[(row0 + row) * D4 + i % D4]) * params.scale;
                y[r] = vec4f(dout[(row0 + row) * D4 + i % D4]);
            }
        }
        put_rows(0u, i / D4, i % D4, x);
        put_rows(1u, i / D4, i % D4, y);
    }
    let kg = lane / QG;
    let g = lane % QG;
    let works = kg < KG;
    var sum: array<array<vec4f, 4>, NU>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = ((b * params.keys + indices[selected + slot] * S) * params.heads + h) * D4;
        var l = vec4f(0.0);
        for (var r = 0u; r < 4u; r++) {
            if 4u * g + r < live { l[r] = lse[stat_of(token, slot, row0 + 4u * g + r)]; }
        }
        var dp = array<vec4f, NK * TILES>();
        var e = array<vec4f, NK * TILES>();
        var part = vec4f(0.0);
        for (var t = 0u; t < TILES; t++) {
            stage(params.values + first, t, lane);
            if works {
                let s = products(1u, lane);
                for (var i = 0u; i < NK; i++) { dp[t * NK + i] = s[i]; }
            }
        }
        for (var k = 0u; k < TILES; k++) {
            // Descending, so that the last tile staged is the first of the next sweep.
            let t = TILES - 1u - k;
            stage(first, t, lane);
            if works {
                let s = products(0u, lane);
                for (var i = 0u; i < NK; i++) {
                    if t * KT + kg + i * KG < S {
                        let x = exp(min(s[i] - l, vec4f(0.0)));
                        e[t * NK + i] = x;
                        part += x * dp[t * NK + i];
                    }
                }
            }
        }
        let dot = sum_over_keys(part, lane);
        if lane < QG {
            for (var r = 0u; r < 4u; r++) {
                if 4u * lane + r < live { stats[stat_of(token, slot, row0 + 4u * lane + r)] = vec2f(l[r], dot[r]); }
            }
        }
        if works {
            for (var i = 0u; i < NK * TILES; i++) {
                let j = i / NK * KT + kg + i % NK * KG;
                if j < S { p[j * QG + g] = weight * e[i] * (dp[i] - dot); }
            }
        }
        for (var t = 0u; t < TILES; t++) {
            if t == 0u { workgroupBarrier(); } else { stage(first, t, lane); }
            for (var u = 0u; u < NU; u++) {
                let unit = lane % UNITS + u * WG;
                let part = lane / UNITS;
                if unit < UNITS && part < PARTS {
                    let y = gathered(t * KT, unit, part);
                    for (var r = 0u; r < 4u; r++) { sum[u][r] += y[r]; }
                }
            }
        }
    }
    for (var u = 0u; u < NU; u++) {
        let y = joined(sum[u], lane);
        let unit = lane + u * WG;
        if unit < UNITS {
            for (var r = 0u; r < 4u; r++) {
                let row = unit / D4 * 4u + r;
                if row < live { dq[(row0 + row) * D4 + unit % D4] = vec4<elem>(y[r] * params.scale); }
            }
        }
    }
}
