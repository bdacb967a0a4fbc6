// uses: lib/grid.wgsl
// Register tiles of one token's query rows against staged keys. QG · 4 rows and KT keys of D4 · 4 dims; a lane holds
// 4 rows × NK keys of their products, or 4 rows × 4 dims of what they gather.
const WG: u32 = 64u;
const KG: u32 = min(WG / QG, KT);                                     // lanes along the keys
const NK: u32 = KT / KG;                                              // keys a lane
const ROW: u32 = D4 + 1u;                                             // padded, so that neighbours use different banks
const TILES: u32 = (S + KT - 1u) / KT;
const UNITS: u32 = QG * D4;                                           // (4 rows, 4 dims) to gather
const PARTS: u32 = max(WG / UNITS, 1u);                               // lanes that share a unit, each with some keys
const NU: u32 = (UNITS + WG - 1u) / WG;                               // units a lane

var<workgroup> rows: array<vec4f, SETS * 4u * D4 * QG>;               // (sets, dim, QG): 4 rows a vector
var<workgroup> tile: array<vec4f, KT * ROW>;                          // (key, dims / 4)
var<workgroup> p: array<vec4f, S * QG>;                               // (key, QG): 4 rows a vector
var<workgroup> partial: array<vec4f, WG>;                             // (KG, QG)

// Dims 4c .. 4c + 3 of the 4 rows of group g, in set `s`. Whole vectors: a component may not be written alone.
fn put_rows(s: u32, g: u32, c: u32, x: mat4x4f) {
    let y = transpose(x);
    let at = (s * 4u * D4 + 4u * c) * QG + g;
    rows[at] = y[0];
    rows[at + QG] = y[1];
    rows[at + 2u * QG] = y[2];
    rows[at + 3u * QG] = y[3];
}

// rows · keys of the tile: for key kg + i · KG, of 4 rows.
fn products(s: u32, lane: u32) -> array<vec4f, NK> {
    var sum: array<vec4f, NK>;
    let kg = lane / QG;
    var at = s * 4u * UNITS + lane % QG;
    for (var c = 0u; c < D4; c++) {
        let a = rows[at];
        let b = rows[at + QG];
        let e = rows[at + 2u * QG];
        let f = rows[at + 3u * QG];
        at += 4u * QG;
        for (var i = 0u; i < NK; i++) {
            let k = tile[(kg + i * KG) * ROW + c];
            sum[i] = fma(f, vec4f(k.w), fma(e, vec4f(k.z), fma(b, vec4f(k.y), fma(a, vec4f(k.x), sum[i]))));
        }
    }
    return sum;
}

// Σ over the keys j of the tile of p[first + j] ⊗ tile[j], for one unit: 4 rows of 4 dims.
fn gathered(first: u32, unit: u32, part: u32) -> array<vec4f, 4> {
    var sum: array<vec4f, 4>;
    let c = unit % D4;
    let g = unit / D4;
    let end = min(KT, S - first);
    for (var j = part; j < end; j += PARTS) {
        let w = p[(first + j) * QG + g];
        let v = tile[j * ROW + c];
        sum[0] = fma(vec4f(w.x), v, sum[0]);
        sum[1] = fma(vec4f(w.y), v, sum[1]);
        sum[2] = fma(vec4f(w.z), v, sum[2]);
        sum[3] = fma(vec4f(w.w), v, sum[3]);
    }
    return sum;
}

// Σ of the lanes that share this lane's 4 rows, in the order of their keys. Contains a barrier on either side.
fn sum_over_keys(value: vec4f, lane: u32) -> vec4f {
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
    var sum = vec4f(0.0);
    for (var k = 0u; k < KG; k++) { sum += partial[k * QG + lane % QG]; }
    return sum;
}

// Adds up the parts of a unit; the first lane of each gets the total. The tile is no longer needed. Contains barriers.
fn joined(value: array<vec4f, 4>, lane: u32) -> array<vec4f, 4> {
    var sum = value;
    for (var r = 0u; r < 4u; r++) {
        workgroupBarrier();
        partial[lane] = sum[r];
        workgroupBarrier();
        for (var part = 1u; part < PARTS; part++) {
            if lane < UNITS { sum[r] += partial[part * UNITS + lane]; }
        }
    }
    return sum;
}
