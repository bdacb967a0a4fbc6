// uses: lib/eights.wgsl
// variants: HALF=1 UNITS=4 COLUMNS=2 HAS_NORM=1 | elem=f16 HALF=1 HAS_BIAS=1 | elem_out=f16 UNITS=16 K=2052 N=3 | elem=f16 elem_out=f16 HALF=1 K=4104 HAS_RESIDUAL=1
// y[row, n] = rstd · Σ_k weight[n, k] · norm[k] · x[row, k] + bias[n] + residual[row, n],   rstd = 1 / √(mean_k x² + eps);
// without a norm both are 1. Weights are read once, so all that counts is how soon they are all on their way: shapes are
// constants, so that no load waits for parameters, and LANES invocations share a line of weights, UNITS loads of 16 bytes
// each, asked for before anything is waited for. Meanwhile the workgroup brings norm · x into its memory and sums x². One
// row along y; partial sums are added in order of lanes.
alias elem = f32;
alias elem_out = f32;
const K: u32 = 1024u;
const N: u32 = 64u;
const HAS_NORM: u32 = 0u;
const HAS_BIAS: u32 = 0u;
const HAS_RESIDUAL: u32 = 0u;
const WG: u32 = 256u;
const LANES: u32 = 32u;
const TEAMS: u32 = WG / LANES;
const UNITS: u32 = 8u;
const COLUMNS: u32 = 1u;                                                    // lines of weights a team
const LOADS: u32 = UNITS * COLUMNS;
const SPAN: u32 = LANES * UNITS;                                            // units of a line a round
const LINE: u32 = K / UNIT;                                                 // units a line
const PARTS: u32 = UNIT / 4u;                                               // quads a unit
const QUADS: u32 = K / 4u;
const EACH: u32 = (SPAN * PARTS + WG - 1u) / WG;                            // quads of x a lane brings, a round
struct Params { eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;              // (rows, K)
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;                // (K)
@group(0) @binding(3) var<storage, read> weight: array<vec4u>;              // (N, K), 16 bytes a unit
@group(0) @binding(4) var<storage, read> bias: array<f32>;                  // (N)
@group(0) @binding(5) var<storage, read> residual: array<f32>;              // (rows, N)
@group(0) @binding(6) var<storage, read_write> y: array<elem_out>;          // (rows, N)

var<workgroup> tile: array<vec4f, SPAN * PARTS>;                            // norm · x: first quads, then second ones
var<workgroup> squares: array<f32, WG>;
var<workgroup> team_squares: array<f32, TEAMS>;
var<workgroup> partial: array<f32, TEAMS * COLUMNS * (LANES + 1u)>;         // lines one apart: other banks

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let team = lane / LANES;
    let column = (group.x * TEAMS + team) * COLUMNS;
    // Who writes a result asks for what is added to it first.
    let n = group.x * TEAMS * COLUMNS + lane;
    let writes = lane < TEAMS * COLUMNS && n < N;
    var added = 0.0;
    if HAS_BIAS == 1u && writes { added += bias[n]; }
    if HAS_RESIDUAL == 1u && writes { added += residual[row * N + n]; }
    var w: array<vec4u, LOADS>;
    var v: array<vec4f, EACH>;
    var scale: array<vec4f, EACH>;
    var sum: array<f32, COLUMNS>;
    var square = 0.0;
    for (var first = 0u; first < LINE; first += SPAN) {
        // Loads are never skipped: beyond the line the tile is 0, lines beyond the last are not written.
        for (var i = 0u; i < EACH; i++) { // unroll
            let at = min(first * PARTS + i * WG + lane, QUADS - 1u);
            v[i] = vec4f(x[row * QUADS + at]);
            if HAS_NORM == 1u { scale[i] = norm[at]; }
        }
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            for (var i = 0u; i < UNITS; i++) { // unroll
                let unit = min(first + i * LANES + lane % LANES, LINE - 1u);
                w[c * UNITS + i] = weight[min(column + c, N - 1u) * LINE + unit];
            }
        }
        for (var i = 0u; i < EACH; i++) { // unroll
            let q = i * WG + lane;
            if q < SPAN * PARTS {
                var quad = select(vec4f(), v[i], first * PARTS + q < QUADS);
                if HAS_NORM == 1u {
                    square += dot(quad, quad);
                    quad *= scale[i];
                }
                tile[q % PARTS * SPAN + q / PARTS] = quad;
            }
        }
        if HAS_NORM == 1u { squares[lane] = square; }
        workgroupBarrier();
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            for (var i = 0u; i < UNITS; i++) { // unroll
                let e = eight_of(w[c * UNITS + i]);
                sum[c] += dot(e.x, tile[i * LANES + lane % LANES]);
                if PARTS == 2u { sum[c] += dot(e.y, tile[(PARTS - 1u) * SPAN + i * LANES + lane % LANES]); }
            }
        }
        if LINE > SPAN { workgroupBarrier(); }
    }
    for (var c = 0u; c < COLUMNS; c++) { // unroll
        partial[(team * COLUMNS + c) * (LANES + 1u) + lane % LANES] = sum[c];
    }
    if HAS_NORM == 1u && lane < TEAMS {
        var four = vec4f();
        for (var i = 0u; i < LANES; i += 4u) { // unroll
            let at = lane * LANES + i;
            four += vec4f(squares[at], squares[at + 1u], squares[at + 2u], squares[at + 3u]);
        }
        team_squares[lane] = four.x + four.y + four.z + four.w;
    }
    workgroupBarrier();
    if !writes { return; }
    var four = vec4f();
    for (var i = 0u; i < LANES; i += 4u) { // unroll
        let at = lane * (LANES + 1u) + i;
        four += vec4f(partial[at], partial[at + 1u], partial[at + 2u], partial[at + 3u]);
    }
    var total = four.x + four.y + four.z + four.w;
    if HAS_NORM == 1u {
        var all = 0.0;
        for (var i = 0u; i < TEAMS; i++) { all += team_squares[i]; } // unroll
        total *= inverseSqrt(all / f32(K) + params.eps);
    }
    y[row * N + n] = elem_out(total + added);
}
