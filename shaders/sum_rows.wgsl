// uses: lib/grid.wgsl
// variants: elem=f16 | GROUP=64 | elem=vec4<f32> real=vec4<f32> | elem=vec4<f16> real=vec4<f32>
// out[g, c] = Σ x[r, c] over the GROUP rows r of group g, in ascending order: the second pass of every sum over rows.
// An invocation owns a column, or four, so no order but the rows' exists.
alias elem = f32;
alias real = f32;
const WG: u32 = 64u;
const GROUP: u32 = 16u;
struct Params { rows: u32, columns: u32, blocks: u32, first_group: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<real>;      // (⌈rows / GROUP⌉, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let g = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    let first = g * GROUP;
    if first >= params.rows || c >= params.columns { return; }
    let last = min(first + GROUP, params.rows);
    let n = params.columns;
    var sum = real();
    var r = first;
    while r + 8u <= last {
        // Eight loads under way together.
        let at = r * n + c;
        let x0 = real(x[at]);
        let x1 = real(x[at + n]);
        let x2 = real(x[at + 2u * n]);
        let x3 = real(x[at + 3u * n]);
        let x4 = real(x[at + 4u * n]);
        let x5 = real(x[at + 5u * n]);
        let x6 = real(x[at + 6u * n]);
        let x7 = real(x[at + 7u * n]);
        sum = sum + x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7;
        r += 8u;
    }
    while r < last {
        sum += real(x[r * n + c]);
        r++;
    }
    out[(params.first_group + g) * n + c] = sum;
}
