// uses: lib/best.wgsl
// Which chunks a token sees, and how those of a tile of scores come into its list. Chunks are counted over all pages, and
// 32 of them are the bits of a word. `tile` holds ROW vectors a token: 32 scores, and one that keeps banks apart.
const ROW: u32 = 9u;

// Chunks of its own sequence that token t sees.
fn visible_chunks(t: u32) -> u32 {
    let position = params.first_position + t;
    if params.has_window == 0u { return position / params.chunk; }
    if position < params.window { return 0u; }
    return (position - params.window) / params.chunk + 1u;
}

// Those of the 32 chunks from `first` on that come before `chunk`.
fn before(chunk: u32, first: u32) -> u32 {
    let count = max(chunk, first) - first;
    return select((1u << (count % 32u)) - 1u, 0xffffffffu, count >= 32u);
}

// Those of the 32 chunks from `first` on that are flagged in the row of a group: all its sequences see them.
fn flagged(row: u32, first: u32) -> u32 {
    var bits = 0u;
    for (var i = 0u; i < 32u; i++) {
        let flag = clean[row + min(first + i, params.chunks - 1u)];
        bits |= select(0u, 1u << i, flag != 0u);
    }
    return bits;
}

// Those of the 32 chunks from `first` on that are not of the sequence which begins at chunk `own`.
fn apart(own: u32, first: u32) -> u32 {
    return before(own, first) | ~before(own + params.own_chunks, first);
}

// Those of the 32 chunks from `first` on that token t sees, whose sequence begins at chunk `own`.
fn visible(t: u32, own: u32, first: u32, flags: u32) -> u32 {
    let seen = before(own + min(visible_chunks(t), params.own_chunks), first) & ~before(own, first);
    return (seen | (flags & apart(own, first))) & before(params.first_chunk + params.chunks, first);
}

// Takes the 32 chunks from `first` on, whose scores are row `row` of the tile, those of other sequences than the one from
// chunk `own` on with the margin. First which might improve the list: soon these are few, and lanes go through theirs in
// step, wherever they lie.
fn take(list: ptr<function, Best>, row: u32, first: u32, may: u32, own: u32) {
    var least = (*list).score[K - 1u];
    // Below that by more than sums are rounded by, however they are computed: none that improves is left out.
    if params.margin > 0.0 { least -= params.margin + 1e-6 * (abs(least) + params.margin); }
    let others = apart(own, first);
    var bits = 0u;
    for (var i = 0u; i < 8u; i++) { // unroll
        let four = select(vec4u(), vec4u(1u, 2u, 4u, 8u), tile[row * ROW + i] * params.scale >= vec4f(least));
        bits |= (four.x | four.y | four.z | four.w) << (4u * i);
    }
    bits &= may;
    while bits != 0u {
        let i = firstTrailingBit(bits);
        bits &= bits - 1u;
        let plain = tile[row * ROW + i / 4u][i % 4u] * params.scale;
        let score = select(plain, plain + params.margin, ((others >> i) & 1u) == 1u);
        if improves(list, score, first + i + 1u) { insert(list, score, first + i + 1u); }
    }
}
