// The K best chunks of a token, in registers: only constants index them. Best first, of equal scores that of the more
// recent chunk; what stays does not depend on the order in which it comes. Chunks are marked by their number + 1, 0 says
// that a slot is empty.
const K: u32 = 8u;
const NONE: f32 = -3.0e38;
struct Best { score: array<f32, K>, mark: array<u32, K> }

fn is_better(score: f32, mark: u32, than: f32, its: u32) -> bool {
    return score > than || (score == than && mark > its);
}

fn improves(list: ptr<function, Best>, score: f32, mark: u32) -> bool {
    return is_better(score, mark, (*list).score[K - 1u], (*list).mark[K - 1u]);
}

// Takes what improves the list, in place of its last.
fn insert(list: ptr<function, Best>, score: f32, mark: u32) {
    for (var j = 1u; j < K; j++) { // unroll
        let s = (*list).score[K - j];
        let m = (*list).mark[K - j];
        let before_s = (*list).score[K - 1u - j];
        let before_m = (*list).mark[K - 1u - j];
        let here = is_better(score, mark, s, m);
        let before = is_better(score, mark, before_s, before_m);
        (*list).score[K - j] = select(select(s, score, here), before_s, before);
        (*list).mark[K - j] = select(select(m, mark, here), before_m, before);
    }
    if is_better(score, mark, (*list).score[0], (*list).mark[0]) {
        (*list).score[0] = score;
        (*list).mark[0] = mark;
    }
}

// By chunk, most recent first, by odd-even transposition; what is empty comes last.
fn order_by_chunk(list: ptr<function, Best>) {
    for (var round = 0u; round < (K + 1u) / 2u; round++) {
        for (var j = 1u; j < K; j += 2u) { // unroll
            let s0 = (*list).score[j - 1u];
            let s1 = (*list).score[j];
            let m0 = (*list).mark[j - 1u];
            let m1 = (*list).mark[j];
            (*list).score[j - 1u] = select(s0, s1, m0 < m1);
            (*list).score[j] = select(s1, s0, m0 < m1);
            (*list).mark[j - 1u] = max(m0, m1);
            (*list).mark[j] = min(m0, m1);
        }
        for (var j = 2u; j < K; j += 2u) { // unroll
            let s0 = (*list).score[j - 1u];
            let s1 = (*list).score[j];
            let m0 = (*list).mark[j - 1u];
            let m1 = (*list).mark[j];
            (*list).score[j - 1u] = select(s0, s1, m0 < m1);
            (*list).score[j] = select(s1, s0, m0 < m1);
            (*list).mark[j - 1u] = max(m0, m1);
            (*list).mark[j] = min(m0, m1);
        }
    }
}

fn clear(list: ptr<function, Best>) {
    for (var i = 0u; i < K; i++) { // unroll
        (*list).score[i] = NONE;
        (*list).mark[i] = 0u;
    }
}

// Reads a list that `store` wrote.
fn restore(list: ptr<function, Best>, at: u32) {
    for (var i = 0u; i < K; i++) { // unroll
        let score = scores[at + i];
        (*list).score[i] = score;
        (*list).mark[i] = select(0u, indices[at + i] + 1u, score > NONE);
    }
}

fn store(list: ptr<function, Best>, at: u32) {
    for (var i = 0u; i < K; i++) { // unroll
        scores[at + i] = (*list).score[i];
        indices[at + i] = max((*list).mark[i], 1u) - 1u;
    }
}
