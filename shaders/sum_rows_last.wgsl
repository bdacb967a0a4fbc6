// uses: lib/column_sum.wgsl, lib/grid.wgsl
// variants: elem=f16 | elem=vec4<f32> real=vec4<f32> | elem=vec4<f16> real=vec4<f32> | LANES=64 | elem=vec4<f32> real=vec4<f32> LANES=64
// The last pass of a sum over rows: Σ x[r, c] over all rows, of the first columns of x, which are up to three results side
// by side. LANES invocations share a column, or four columns: each adds up every LANES-th row, in ascending order, then two
// halves of them are added until one is left.
alias elem = f32;
alias real = f32;
const WG: u32 = 256u;
const LANES: u32 = 1u;                                                // a power of two
const WIDE: u32 = WG / LANES;
struct Params { rows: u32, stride: u32, columns: u32, second: u32, third: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // second, third: the columns where these begin
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, stride)
@group(0) @binding(2) var<storage, read_write> out: array<real>;      // (second)
@group(0) @binding(3) var<storage, read_write> out2: array<real>;     // (third − second)
@group(0) @binding(4) var<storage, read_write> out3: array<real>;     // (columns − third)

var<workgroup> sums: array<real, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = row_of(group) * WIDE + lane % WIDE;
    let near = min(c, params.columns - 1u);                           // all stay until the last barrier
    let r = lane / WIDE;
    let mine = (max(params.rows, r) - r + LANES - 1u) / LANES;
    var sum = column_sum(r * params.stride + near, params.stride * LANES, mine);
    if LANES > 1u {
        sums[lane] = sum;
        workgroupBarrier();
        for (var half = WG / 2u; half >= WIDE; half /= 2u) {
            if lane < half {
                sum += sums[lane + half];
                sums[lane] = sum;
            }
            workgroupBarrier();
        }
    }
    if lane >= WIDE || c >= params.columns { return; }
    if c < params.second {
        out[c] = sum;
    } else if c < params.third {
        out2[c - params.second] = sum;
    } else {
        out3[c - params.third] = sum;
    }
}
