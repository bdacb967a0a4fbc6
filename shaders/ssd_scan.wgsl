// uses: lib/grid.wgsl
// variants: OUTPUT=1 | REVERSE=1 | OUTPUT=1 REVERSE=1 | elem=f16 | elem=f16 elem_out=f16 OUTPUT=1 | elem=f16 OUTPUT=1 REVERSE=1 | OUTPUT=1 EXCLUSIVE=1 MARKS=1 | OUTPUT=1 REVERSE=1 EXCLUSIVE=1 MARKS=2 | J4=4 OUTPUT=1 | J4=32 OUTPUT=1 | J4=64 STAGE=4 OUTPUT=1
// The recurrence of a block of Q tokens, one head: with state s (rows, J),
//   forward:  s ← decay[t] · s + in[t] ⊗ wr[t],  out[t] = s · read[t]
//   reverse:  s ← s + in[t] ⊗ wr[t],  out[t] = s · read[t],  s ← decay[t] · s,  t descending
// y and dx have the head dims as rows, dB and dC the state dims: four uses of one kernel, see engine/src/ops/ssd_scan.rs.
// OUTPUT = 0 starts from zeros and leaves the block's last state and its total decay; OUTPUT = 1 starts from the state
// that reaches the block and writes out; EXCLUSIVE leaves the token's own in ⊗ wr out of it. An invocation owns a row of
// s in registers, so it sums without company. With MARKS a forward pass leaves the states that enter each TILE tokens,
// and a reverse pass, which reaches the same place from the other side, their products with its own, row by row.
alias elem = f32;
alias elem_out = f32;
const OUTPUT: u32 = 0u;
const REVERSE: u32 = 0u;
const EXCLUSIVE: u32 = 0u;
const MARKS: u32 = 0u;                                                // 1: leave them, 2: meet them
const J4: u32 = 16u;                                                  // ⌈J / 4⌉
const Q: u32 = 128u;
const TILE: u32 = 8u;
const STAGE: u32 = 8u;                                                // tokens staged at a time
const WG: u32 = 64u;
struct Params {
    tokens: u32, blocks: u32, heads: u32, rows: u32, j: u32, row_tiles: u32,
    in_stride: u32, in_share: u32, wr_stride: u32, wr_share: u32, read_stride: u32, read_share: u32,
    state_row: u32, state_j: u32, dt_in: u32, has_d: u32, first: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<elem>;          // (batches, tokens, in_stride)
@group(0) @binding(2) var<storage, read> wr: array<elem>;             // (batches, tokens, wr_stride)
@group(0) @binding(3) var<storage, read> rd: array<elem>;             // (batches, tokens, read_stride)
@group(0) @binding(4) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(5) var<storage, read> side: array<f32>;            // D (heads), or marks (groups, Q / TILE, J, WG)
@group(0) @binding(6) var<storage, read_write> states: array<f32>;    // (batches, blocks, heads, head dim, state)
@group(0) @binding(7) var<storage, read_write> extra: array<f32>;     // total decays (batches, blocks, heads), marks, or
                                                                      // products (batches, blocks, Q / TILE, heads, rows)
@group(0) @binding(8) var<storage, read_write> out: array<elem_out>;  // (batches, tokens, heads, rows)

var<workgroup> wr_tile: array<vec4f, J4 * STAGE>;
var<workgroup> read_tile: array<vec4f, J4 * STAGE>;
var<workgroup> step_tile: array<vec2f, STAGE>;

fn load_wr(at: u32, j: u32) -> f32 {
    if j >= params.j { return 0.0; }
    return f32(wr[at + j]);
}

fn load_read(at: u32, j: u32) -> f32 {
    if j >= params.j { return 0.0; }
    return f32(rd[at + j]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group) + params.first;
    if index >= params.groups { return; }                             // uniform
    let row = (index % params.row_tiles) * WG + lane;
    let h = (index / params.row_tiles) % params.heads;
    let block = (index / params.row_tiles / params.heads) % params.blocks;
    let b = index / params.row_tiles / params.heads / params.blocks;
    let live = row < params.rows;
    let state_start = ((b * params.blocks + block) * params.heads + h) * params.rows * params.j + row * params.state_row;
    var s: array<vec4f, J4>;
    for (var q = 0u; q < J4; q++) {
        s[q] = vec4f(0.0);
        if OUTPUT == 1u && live {
            for (var e = 0u; e < 4u; e++) {
                if q * 4u + e < params.j { s[q][e] = states[state_start + (q * 4u + e) * params.state_j]; }
            }
        }
    }
    var total = 1.0;
    let first = block * Q;
    for (var stage = 0u; stage < Q / STAGE; stage++) {
        // Tokens in the order of the recurrence.
        for (var i = lane; i < J4 * STAGE; i += WG) {
            let k = stage * STAGE + i / J4;
            let t = first + select(k, Q - 1u - k, REVERSE == 1u);
            var w = vec4f(0.0);
            var r = vec4f(0.0);
            if t < params.tokens {
                let j = (i % J4) * 4u;
                let w_at = (b * params.tokens + t) * params.wr_stride + (h / params.wr_share) * params.j;
                w = vec4f(load_wr(w_at, j), load_wr(w_at, j + 1u), load_wr(w_at, j + 2u), load_wr(w_at, j + 3u));
                if OUTPUT == 1u {
                    let r_at = (b * params.tokens + t) * params.read_stride + (h / params.read_share) * params.j;
                    r = vec4f(load_read(r_at, j), load_read(r_at, j + 1u), load_read(r_at, j + 2u), load_read(r_at, j + 3u));
                }
            }
            wr_tile[i] = w;
            read_tile[i] = r;
        }
        if lane < STAGE {
            let k = stage * STAGE + lane;
            let t = first + select(k, Q - 1u - k, REVERSE == 1u);
            // Beyond the end nothing decays and nothing comes in.
            step_tile[lane] = vec2f(0.0, 1.0);
            if t < params.tokens { step_tile[lane] = steps[(b * params.tokens + t) * params.heads + h]; }
        }
        workgroupBarrier();
        for (var i = 0u; i < STAGE; i++) {
            let k = stage * STAGE + i;
            let tile = k / TILE;
            let mark = (index - params.first) * (Q / TILE) + select(tile, Q / TILE - 1u - tile, REVERSE == 1u);
            if MARKS == 1u && k % TILE == 0u {
                for (var q = 0u; q < J4; q++) {
                    for (var e = 0u; e < 4u; e++) { extra[((mark * J4 + q) * 4u + e) * WG + lane] = s[q][e]; }
                }
            }
            let t = first + select(k, Q - 1u - k, REVERSE == 1u);
            let step = step_tile[i];
            var v = 0.0;
            var plain = 0.0;
            let at = b * params.tokens + t;
            if live && t < params.tokens {
                plain = f32(input[at * params.in_stride + (h / params.in_share) * params.rows + row]);
                v = plain * select(1.0, step.x, params.dt_in != 0u);
            }
            var sum = vec4f(0.0);
            for (var q = 0u; q < J4; q++) {
                var u = s[q];
                if REVERSE == 0u { u *= step.y; }
                if EXCLUSIVE == 1u { sum = fma(u, read_tile[i * J4 + q], sum); }
                u = fma(vec4f(v), wr_tile[i * J4 + q], u);
                if EXCLUSIVE == 0u { sum = fma(u, read_tile[i * J4 + q], sum); }
                if REVERSE == 1u { u *= step.y; }
                s[q] = u;
            }
            total *= step.y;
            if OUTPUT == 1u && live && t < params.tokens {
                var y = (sum.x + sum.y) + (sum.z + sum.w);
                if params.has_d != 0u { y += side[h] * plain; }
                out[(at * params.heads + h) * params.rows + row] = elem_out(y);
            }
            if MARKS == 2u && k % TILE == TILE - 1u {
                var product = vec4f(0.0);
                for (var q = 0u; q < J4; q++) {
                    let at = (mark * J4 + q) * 4u * WG + lane;
                    product = fma(s[q], vec4f(side[at], side[at + WG], side[at + 2u * WG], side[at + 3u * WG]), product);
                }
                if live {
                    let at = (b * params.blocks + block) * (Q / TILE) + Q / TILE - 1u - tile;
                    extra[(at * params.heads + h) * params.rows + row] = (product.x + product.y) + (product.z + product.w);
                }
            }
        }
        workgroupBarrier();
    }
    if OUTPUT == 0u && live {
        for (var q = 0u; q < J4; q++) {
            for (var e = 0u; e < 4u; e++) {
                if q * 4u + e < params.j { states[state_start + (q * 4u + e) * params.state_j] = s[q][e]; }
            }
        }
        if row == 0u { extra[(b * params.blocks + block) * params.heads + h] = total; }
    }
}
