// The K best chunks of a token, in registers: only constants index them. Best first, of equal scores that of the more
// recent chunk; what stays does not depend on the order in which it comes. Chunks are marked by their number + 1, 0 says
// that a slot is empty.
const K: u32 = 8u;                                                    // at most 64
const MISSING: u32 = (1u << (32u - countLeadingZeros(K - 1u))) - K;   // to a power of two
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

// Exchanges the i-th and the j-th where they are out of order.
fn exchange(list: ptr<function, Best>, i: u32, j: u32, out_of_order: bool) {
    let score = (*list).score[i];
    let mark = (*list).mark[i];
    (*list).score[i] = select(score, (*list).score[j], out_of_order);
    (*list).mark[i] = select(mark, (*list).mark[j], out_of_order);
    (*list).score[j] = select((*list).score[j], score, out_of_order);
    (*list).mark[j] = select((*list).mark[j], mark, out_of_order);
}

fn best_first(list: ptr<function, Best>, i: u32, j: u32) {
    exchange(list, i, j, is_better((*list).score[j], (*list).mark[j], (*list).score[i], (*list).mark[i]));
}

fn recent_first(list: ptr<function, Best>, i: u32, j: u32) { exchange(list, i, j, (*list).mark[i] < (*list).mark[j]); }

// Joins two lists, both best first (Batcher 1968): the better of the i-th of one and the i-th but last of the other are the K
// best, which fall and then rise; exchanges over half the list, a quarter and so on put them in order, counted as if there
// were a power of two of them, the missing ones in front. What insertions would wait for one after another moves at once.
fn join(list: ptr<function, Best>, other: ptr<function, Best>) {
    for (var i = 0u; i < K; i++) { // unroll
        let score = (*other).score[K - 1u - i];
        let mark = (*other).mark[K - 1u - i];
        let better = is_better(score, mark, (*list).score[i], (*list).mark[i]);
        (*list).score[i] = select((*list).score[i], score, better);
        (*list).mark[i] = select((*list).mark[i], mark, better);
    }
    for (var halving = 0u; halving < 6u; halving++) { // unroll
        for (var i = 0u; i < K; i++) { // unroll
            if ((MISSING + i) & (32u >> halving)) == 0u && i + (32u >> halving) < K {
                best_first(list, i, min(i + (32u >> halving), K - 1u));
            }
        }
    }
}

// By chunk, most recent first, by odd-even transposition; what is empty comes last.
fn order_by_chunk(list: ptr<function, Best>) {
    for (var round = 0u; round < (K + 1u) / 2u; round++) {
        for (var j = 1u; j < K; j += 2u) { recent_first(list, j - 1u, j); } // unroll
        for (var j = 2u; j < K; j += 2u) { recent_first(list, j - 1u, j); } // unroll
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
