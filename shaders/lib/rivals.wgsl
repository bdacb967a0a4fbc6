// Chunks that stand against the one that a row should select. Bits of a chunk's flags:
const OTHERS: u32 = 1u;                                               // a rival for the group's other sequences
const OWN: u32 = 2u;                                                  // for its own
const NOT_A_RIVAL: f32 = -1.0e30;
const ENOUGH: f32 = 4.0;                                              // takes 0.98 of a stick

// What `chunk`'s score gains as a rival of `told`: sequences of `chunks` chunks, groups of `group`. NOT_A_RIVAL for what is
// none: in another group, or of the statement itself.
fn rival_margin(chunk: u32, flags: u32, told: vec3u, chunks: u32, group: u32, margin: f32) -> f32 {
    let theirs = chunk / chunks;
    let ours = told.x / chunks;
    if theirs / group != ours / group || (chunk >= told.y && chunk <= told.z) { return NOT_A_RIVAL; }
    if theirs == ours { return select(NOT_A_RIVAL, 0.0, (flags & OWN) != 0u); }
    return select(NOT_A_RIVAL, margin, (flags & OTHERS) != 0u);
}
