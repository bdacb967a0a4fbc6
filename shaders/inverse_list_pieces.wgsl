// uses: lib/scan.wgsl
// Cuts each list into pieces of PIECE members, so that a long list is many workgroups' work and its sum has a fixed order:
// pieces[i] = (list, begin, end, 0), the lists' in order, then (keys, 0, 0, 0); piece_starts[k] = the first piece of list k.
const WG: u32 = 256u;
struct Params { keys: u32, piece: u32, most: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // most: room in pieces
@group(0) @binding(1) var<storage, read> starts: array<u32>;          // (keys + 1)
@group(0) @binding(2) var<storage, read_write> pieces: array<vec4u>;  // (most)
@group(0) @binding(3) var<storage, read_write> piece_starts: array<u32>; // (keys + 1)

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var carry = 0u;
    for (var first = 0u; first < params.keys; first += WG) {
        let key = first + lane;
        var count = 0u;
        if key < params.keys { count = (starts[key + 1u] - starts[key] + params.piece - 1u) / params.piece; }
        let at = carry + workgroup_scan(count, lane) - count;
        if key < params.keys {
            piece_starts[key] = at;
            let end = starts[key + 1u];
            for (var i = 0u; i < count; i++) {
                let begin = starts[key] + i * params.piece;
                pieces[at + i] = vec4u(key, begin, min(begin + params.piece, end), 0u);
            }
        }
        carry += scan_scratch[WG - 1u];
    }
    if lane == 0u { piece_starts[params.keys] = carry; }
    for (var i = carry + lane; i < params.most; i += WG) { pieces[i] = vec4u(params.keys, 0u, 0u, 0u); }
}
