// uses: lib/grid.wgsl, lib/eights.wgsl
// variants: HALF=1
// Σ ds · q over the slots of a piece of the list of those that selected a chunk, in ascending order; the pieces' sums
// are joined afterwards. A workgroup takes WG units of one piece, an invocation one.
const WG: u32 = 64u;
const PIECE: u32 = 256u;
struct Params { groups: u32, blocks: u32, lists: u32, slots: u32, units: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈units / WG⌉, groups = pieces · blocks
@group(0) @binding(1) var<storage, read> dscores: array<f32>;         // (rows, slots)
@group(0) @binding(2) var<storage, read> q: array<vec4u>;             // (rows, units): (sequences, tokens, heads)
@group(0) @binding(3) var<storage, read> order: array<u32>;           // slots by list
@group(0) @binding(4) var<storage, read> pieces: array<vec4u>;        // (pieces): list, begin, end
@group(0) @binding(5) var<storage, read_write> partial: array<vec4f>; // (pieces, units, UNIT elements)

var<workgroup> rows: array<u32, PIECE>;
var<workgroup> weights: array<f32, PIECE>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let place = index / params.blocks;
    let piece = pieces[place];
    if piece.x >= params.lists { return; }                            // uniform: room that no list needs
    let count = piece.z - piece.y;
    for (var i = lane; i < PIECE; i += WG) {
        let slot = order[piece.y + min(i, count - 1u)];
        rows[i] = slot / params.slots;
        weights[i] = select(0.0, dscores[slot], i < count);
    }
    workgroupBarrier();
    let unit = index % params.blocks * WG + lane;
    if unit >= params.units { return; }
    var x = vec4f();
    var y = vec4f();
    // Eight loads under way, and their sum by itself first: one long sum would lose a digit. What repeats weighs 0.
    for (var first = 0u; first < count; first += 8u) {
        var words = array<vec4u, 8>();
        for (var j = 0u; j < 8u; j++) { words[j] = q[rows[first + j] * params.units + unit]; } // unroll
        var x8 = vec4f();
        var y8 = vec4f();
        for (var j = 0u; j < 8u; j++) { // unroll
            let e = eight_of(words[j]);
            x8 = fma(vec4f(weights[first + j]), e.x, x8);
            y8 = fma(vec4f(weights[first + j]), e.y, y8);
        }
        x += x8;
        y += y8;
    }
    let at = (place * params.units + unit) * (UNIT / 4u);
    partial[at] = x;
    if HALF == 1u { partial[at + 1u] = y; }
}
