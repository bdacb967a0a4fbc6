//! Keys and values in eight bits: chunks with a scale for each head, and copies of selected ones in floats again.
//!
//! scale = max |x| / 127 over a chunk's tokens and a head's channels, x ≈ scale · round(x / scale): no element is off by more
//! than half a scale, 1/254 of the largest.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Draw, Input, Sizes},
};

/// (numbers, scales): x (chunks · S, heads, channels), floats of either width, in eight bits. Numbers are
/// (chunks · S, heads, channels / 4), u32, four signed bytes a word; scales are (chunks, heads), f32. Outside of the graph.
///
/// # Panics
/// Where x does not hold whole chunks of `chunk` tokens, or its channels are no multiple of 4.
#[track_caller]
pub fn quantize_chunks(x: &Tensor, chunk: usize) -> (Tensor, Tensor) {
    let [rows, heads, channels] = x.axes();
    assert!(rows.is_multiple_of(chunk), "quantize_chunks: {rows} tokens in chunks of {chunk}");
    assert!(channels.is_multiple_of(4), "quantize_chunks: {channels} channels, expected a multiple of 4");
    let (chunks, units) = (rows / chunk, channels / 4);
    let numbers = x.empty_on([rows, heads, units], DType::U32);
    let scales = x.empty_on([chunks, heads], DType::F32);
    let (wide, narrow) = (chunk * heads * channels * x.dtype().bytes(), chunk * heads * channels);
    let step = rows_a_page(x.gpu(), &[wide, narrow]);
    for first in (0..chunks).step_by(step) {
        let n = step.min(chunks - first);
        let (part, packed) = (x.page(first, n, wide), numbers.page(first, n, narrow));
        let groups = n * heads;
        launch!(quantize_chunks [elem = x.dtype().wgsl_by(4)] { groups, first, chunk, heads, units },
                [part] -> [packed, scales], groups);
    }
    (numbers, scales)
}

/// The chunks that `indices` name, in floats again, into `out` (slots · S, heads, channels): chunk i is chunk `indices[i]` of
/// the pages in order; slots whose chunk is not among them stay as they are. Outside of the graph.
///
/// `pages`: what [`quantize_chunks`] gives, or rows of it; `indices`: u32, any shape.
///
/// # Panics
/// Where shapes disagree.
#[track_caller]
pub fn gather_quantized_into(out: &Tensor, pages: &[(Tensor, Tensor)], indices: &Tensor, chunk: usize) {
    let ([rows, heads, channels], slots) = (out.axes(), indices.len());
    assert_eq!(rows, slots * chunk, "gather_quantized: out {:?} for {slots} chunks of {chunk}", out.shape());
    let units = channels / 4;
    let size = chunk * heads * units;
    let (bytes, out_bytes) = (4 * size, 4 * size * out.dtype().bytes());
    let step = rows_a_page(out.gpu(), &[bytes]);
    let slot_step = rows_a_page(out.gpu(), &[out_bytes, 4]);
    let mut first = 0;
    for (numbers, scales) in pages {
        let chunks = numbers.len() / size.max(1);
        assert_eq!(
            (chunks * size, chunks * heads),
            (numbers.len(), scales.len()),
            "gather_quantized: numbers {:?} and scales {:?} for out {:?}",
            numbers.shape(),
            scales.shape(),
            out.shape()
        );
        for skipped in (0..chunks).step_by(step) {
            let n = step.min(chunks - skipped);
            let part = numbers.page(skipped, n, bytes);
            for slot in (0..slots).step_by(slot_step) {
                let count = slot_step.min(slots - slot);
                let (indices, out_) = (indices.page(slot, count, 4), out.page(slot, count, out_bytes));
                launch!(gather_quantized [elem = out.dtype().wgsl_by(4)] {
                    slots: count, first: first + skipped, skipped, chunks: n, size, heads, units,
                }, [indices, part, scales] -> [out_], count);
            }
        }
        first += chunks;
    }
}

/// Chunks whose largest is 127 times a power of two, another one for each chunk and head, and whose elements are multiples of
/// it: eight bits hold them as they are.
fn chunks(draw: &mut Draw, s: &Sizes, count: usize) -> Array {
    let [_, _, _, chunk, heads, channels] = s.get();
    let mut x = draw.integers(&[count * chunk, heads, channels], -127, 128);
    for c in 0..count {
        for h in 0..heads {
            let (row, channel) = (c * chunk + draw.below(chunk), draw.below(channels));
            *x.at_mut(&[row, h, channel]) = if draw.below(2) == 0 { 127.0 } else { -127.0 };
            let factor = (2.0f64).powi(draw.below(5) as i32 - 2);
            for row in c * chunk..(c + 1) * chunk {
                (0..channels).for_each(|i| *x.at_mut(&[row, h, i]) *= factor);
            }
        }
    }
    x
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("first_chunks", 1, 9),
            Dim::range("more_chunks", 1, 9),
            Dim::range("slots", 1, 40),
            Dim::one_of("chunk", &[16, 64]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("channels", &[4, 16, 12]),
        ],
        inputs: |s, draw| {
            let [a, b, slots, ..]: [usize; 6] = s.get();
            vec![
                Input::new("page 0", chunks(draw, s, a)),
                Input::new("page 1", chunks(draw, s, b)),
                Input::new("indices", draw.integers(&[slots], 0, (a + b) as i64)).of(DType::U32),
            ]
        },
        run: |s, i| {
            let [_, _, slots, chunk, heads, channels] = s.get();
            let out = i[0].empty_on([slots * chunk, heads, channels], i[0].dtype());
            gather_quantized_into(&out, &[0, 1].map(|p| quantize_chunks(&i[p], chunk)), &i[2], chunk);
            vec![out]
        },
        reference: |s, i| {
            let [_, _, slots, chunk, heads, channels] = s.get();
            let size = chunk * heads * channels;
            let all: Vec<f64> = i[0].data.iter().chain(&i[1].data).copied().collect();
            let data = i[2].data.iter().flat_map(|c| all[*c as usize * size..][..size].to_vec()).collect();
            vec![Array::new(&[slots * chunk, heads, channels], data)]
        },
        // Division and product.
        error: |_| 8.0,
        cost: |s| {
            let [a, b, slots, chunk, heads, channels] = s.get();
            Cost { bytes: (5 * (a + b) + 5 * slots) * chunk * heads * channels, flops: 0 }
        },
        bench: &[&[4096, 4096, 4096, 64, 1, 32]],
        ..Case::new("quantized")
    };
    vec![plain.in_half("quantized.f16", &["page 0", "page 1"], 1.0), plain]
}
