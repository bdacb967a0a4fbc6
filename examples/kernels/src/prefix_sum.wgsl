// Running sums along each row: y[r][i] = x[r][0] + … + x[r][i]. A workgroup a row, 64 columns at a time (Hillis & Steele
// 1986), with the sum so far carried over.
struct Params { columns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const WG: u32 = 64u;
var<workgroup> tile: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let start = group.x * params.columns;
    var carry = 0.0;
    for (var base = 0u; base < params.columns; base += WG) {
        let column = base + lane;
        tile[lane] = 0.0;
        if column < params.columns { tile[lane] = x[start + column]; }
        workgroupBarrier();
        for (var width = 1u; width < WG; width *= 2u) {
            var left = 0.0;
            if lane >= width { left = tile[lane - width]; }
            workgroupBarrier();
            tile[lane] += left;
            workgroupBarrier();
        }
        if column < params.columns { y[start + column] = carry + tile[lane]; }
        carry += tile[WG - 1u];
        workgroupBarrier();
    }
}
