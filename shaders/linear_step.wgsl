// uses: lib/eights.wgsl
// variants: HALF=1 UNITS=4 COLUMNS=2 | elem=f16 HALF=1 | elem_out=f16 UNITS=16 | elem=f16 elem_out=f16 HALF=1 UNITS=4 COLUMNS=2
// y[row, n] = rstd · Σ_k weight[n, k] · norm[k] · x[row, k] + bias[n] + residual[row, n],   rstd = 1 / √(mean_k x² + eps);
// without a norm both are 1. Weights are read once, so all that counts is how much of them is on its way: LANES
// invocations share a line of weights, UNITS loads of 16 bytes each, asked for before anything is waited for. Meanwhile
// the workgroup brings norm · x into its memory and sums x². One row along y; partial sums are added in order of lanes.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const LANES: u32 = 32u;
const TEAMS: u32 = 8u;                                                      // WG / LANES
const UNITS: u32 = 8u;
const COLUMNS: u32 = 1u;                                                    // lines of weights a team
const LOADS: u32 = UNITS * COLUMNS;
const SPAN: u32 = LANES * UNITS;                                            // units of a line a round
const PARTS: u32 = UNIT / 4u;                                               // quads a unit
struct Params { k: u32, n: u32, has_norm: u32, eps: f32, has_bias: u32, has_residual: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;              // (rows, k)
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;                // (k)
@group(0) @binding(3) var<storage, read> weight: array<vec4u>;              // (n, k), 16 bytes a unit
@group(0) @binding(4) var<storage, read> bias: array<f32>;                  // (n)
@group(0) @binding(5) var<storage, read> residual: array<f32>;              // (rows, n)
@group(0) @binding(6) var<storage, read_write> y: array<elem_out>;          // (rows, n)

var<workgroup> tile: array<vec4f, SPAN * PARTS>;                            // norm · x: first quads, then second ones
var<workgroup> squares: array<f32, WG>;
var<workgroup> team_squares: array<f32, TEAMS>;
var<workgroup> partial: array<f32, TEAMS * COLUMNS * (LANES + 1u)>;         // lines one apart: other banks

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let quads = params.k / 4u;
    let units = params.k / UNIT;
    let team = lane / LANES;
    let column = (group.x * TEAMS + team) * COLUMNS;
    // Who writes a result asks for what is added to it first.
    let n = group.x * TEAMS * COLUMNS + lane;
    let writes = lane < TEAMS * COLUMNS && n < params.n;
    var added = 0.0;
    if writes && params.has_bias != 0u { added += bias[n]; }
    if writes && params.has_residual != 0u { added += residual[row * params.n + n]; }
    var w: array<vec4u, LOADS>;
    var sum: array<f32, COLUMNS>;
    var square = 0.0;
    for (var first = 0u; first < units; first += SPAN) {
        // Loads are never skipped: beyond the line the tile is 0, lines beyond the last are not written.
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            for (var i = 0u; i < UNITS; i++) { // unroll
                let unit = min(first + i * LANES + lane % LANES, units - 1u);
                w[c * UNITS + i] = weight[min(column + c, params.n - 1u) * units + unit];
            }
        }
        for (var q = lane; q < SPAN * PARTS; q += WG) {
            let at = first * PARTS + q;
            var v = vec4f();
            if at < quads {
                v = vec4f(x[row * quads + at]);
                square += dot(v, v);
                if params.has_norm != 0u { v *= norm[at]; }
            }
            tile[q % PARTS * SPAN + q / PARTS] = v;
        }
        squares[lane] = square;
        workgroupBarrier();
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            for (var i = 0u; i < UNITS; i++) { // unroll
                let e = eight_of(w[c * UNITS + i]);
                sum[c] += dot(e.x, tile[i * LANES + lane % LANES]);
                if PARTS == 2u { sum[c] += dot(e.y, tile[(PARTS - 1u) * SPAN + i * LANES + lane % LANES]); }
            }
        }
        workgroupBarrier();
    }
    for (var c = 0u; c < COLUMNS; c++) { // unroll
        partial[(team * COLUMNS + c) * (LANES + 1u) + lane % LANES] = sum[c];
    }
    if lane < TEAMS {
        var four = vec4f();
        for (var i = lane * LANES; i < (lane + 1u) * LANES; i += 4u) {
            four += vec4f(squares[i], squares[i + 1u], squares[i + 2u], squares[i + 3u]);
        }
        team_squares[lane] = four.x + four.y + four.z + four.w;
    }
    workgroupBarrier();
    if !writes { return; }
    var four = vec4f();
    let line = lane * (LANES + 1u);
    for (var i = line; i < line + LANES; i += 4u) {
        four += vec4f(partial[i], partial[i + 1u], partial[i + 2u], partial[i + 3u]);
    }
    var total = four.x + four.y + four.z + four.w;
    if params.has_norm != 0u {
        var all = 0.0;
        for (var i = 0u; i < TEAMS; i++) { all += team_squares[i]; }
        total *= inverseSqrt(all / f32(params.k) + params.eps);
    }
    y[row * params.n + n] = elem_out(total + added);
}
