//! Copies of selected chunks from pages of memory, so that a few tokens can look into any amount of it.

use crate::{
    Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// The chunks that `indices` name, one after another: chunk i of the result is chunk `indices[i]` of the pages in
/// order. Outside of the graph.
///
/// `pages`: (chunks · S, …) each, all of one type and row; `indices`: u32, any shape; the result is
/// (slots · S, …). Where an index lies beyond the pages, its chunk is undefined.
///
/// # Panics
/// Where there are no pages, or one does not hold whole chunks.
#[track_caller]
pub fn gather_chunks(pages: &[&Tensor], indices: &Tensor, chunk: usize) -> Tensor {
    let near = pages.first().expect("gather_chunks: at least one page");
    let mut shape = near.shape().to_vec();
    shape[0] = indices.len() * chunk;
    let out = near.empty_on(shape, near.dtype());
    gather_chunks_into(&out, 0, pages, indices, chunk);
    out
}

/// [`gather_chunks`] into `out`, (slots · S, …), from pages whose first chunk has the number `first`; slots whose chunk is
/// not among them stay as they are.
///
/// # Panics
/// As [`gather_chunks`].
#[track_caller]
pub fn gather_chunks_into(out: &Tensor, first: usize, pages: &[&Tensor], indices: &Tensor, chunk: usize) {
    let near = pages.first().expect("gather_chunks: at least one page");
    let (dtype, slots) = (out.dtype(), indices.len());
    let row = near.len() / near.shape()[0].max(1);
    let size = chunk * row;
    assert_eq!(out.len(), slots * size, "gather_chunks: out {:?} for {slots} chunks of {size}", out.shape());
    let bytes = size * dtype.bytes();
    let step = rows_a_page(near.gpu(), &[bytes]);
    let slot_step = rows_a_page(near.gpu(), &[bytes, 4]);
    let mut first = first;
    for page in pages {
        let chunks = page.shape()[0] / chunk;
        assert_eq!(page.dtype(), dtype, "gather_chunks: types of pages");
        assert_eq!(chunks * size, page.len(), "gather_chunks: a page of {:?} in chunks of {chunk}", page.shape());
        for start in (0..chunks).step_by(step) {
            let n = step.min(chunks - start);
            let part = page.page(start, n, bytes);
            for slot in (0..slots).step_by(slot_step) {
                let count = slot_step.min(slots - slot);
                let (indices, out) = (indices.page(slot, count, 4), out.page(slot, count, bytes));
                launch!(gather_chunks [elem = dtype.wgsl()] { slots: count, first: first + start, chunks: n, size },
                        [indices, part] -> [out], count);
            }
        }
        first += chunks;
    }
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("first_chunks", 1, 9),
            Dim::range("more_chunks", 1, 9),
            Dim::range("slots", 1, 40),
            Dim::one_of("chunk", &[16, 64]),
            Dim::one_of("row", &[4, 32]),
        ],
        inputs: |s, draw| {
            let [a, b, slots, chunk, row] = s.get();
            vec![
                Input::new("page 0", draw.normal(&[a * chunk, row])),
                Input::new("page 1", draw.normal(&[b * chunk, row])),
                Input::new("indices", draw.integers(&[slots], 0, (a + b) as i64)).of(crate::DType::U32),
            ]
        },
        run: |s, i| vec![gather_chunks(&[&i[0], &i[1]], &i[2], s["chunk"])],
        reference: |s, i| {
            let size = s["chunk"] * s["row"];
            let all: Vec<f64> = i[0].data.iter().chain(&i[1].data).copied().collect();
            let data = i[2].data.iter().flat_map(|c| all[*c as usize * size..][..size].to_vec()).collect();
            vec![Array::new(&[s["slots"] * s["chunk"], s["row"]], data)]
        },
        cost: |s| Cost { bytes: 8 * s["slots"] * s["chunk"] * s["row"], flops: 0 },
        bench: &[&[8192, 8192, 4096, 64, 32]],
        ..Case::new("gather_chunks")
    };
    vec![plain.in_half("gather_chunks.f16", &["page 0", "page 1"], 0.0), plain]
}
