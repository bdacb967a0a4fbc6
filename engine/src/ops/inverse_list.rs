//! Which positions hold which key: what sums over tokens that share a target are built on.
//!
//! A stable radix sort, least significant digit first (Knuth, TAOCP 3, 5.2.5): linear in the positions whatever the
//! number of keys, ranks from counts and prefix sums alone, so the lists are the same in every run.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    testing::{Case, Cost, Dim, Input},
};

/// Keys a workgroup; `WG` in the kernels.
const BLOCK: usize = 256;

/// For each key the ascending positions that hold it.
#[derive(Clone, Debug)]
pub struct InverseList {
    /// (positions), u32: positions in the order of their keys, equal keys in ascending position. Those whose key lies
    /// beyond the last come at the end.
    pub order: Tensor,
    /// (positions), u32: the key of each entry of `order`; those beyond the last key as the number of keys.
    pub sorted: Tensor,
    /// (keys + 1), u32: key k owns `order[starts[k]..starts[k + 1]]`.
    pub starts: Tensor,
}

/// The lists cut into pieces, so that a long one is many workgroups' work with sums in a fixed order.
pub(crate) struct Pieces {
    /// (most, 4), u32: list, begin, end in `order`, 0; the lists' in order, then unused ones that name list `keys`.
    pub pieces: Tensor,
    /// (keys + 1), u32: list k owns `pieces[starts[k]..starts[k + 1]]`.
    pub starts: Tensor,
    /// How many there may be.
    pub most: usize,
}

impl InverseList {
    /// Pieces of at most `piece` members.
    pub(crate) fn pieces(&self, piece: usize) -> Pieces {
        let keys = self.starts.len() - 1;
        // Each list may end with a piece that is not full.
        let most = self.order.len() / piece + keys.min(self.order.len()) + 1;
        let pieces = self.starts.empty_on([most, 4], DType::U32);
        let starts = self.starts.like();
        launch!(inverse_list_pieces { keys, piece, most }, [self.starts] -> [pieces, starts], 1);
        Pieces { pieces, starts, most }
    }
}

/// Lists the positions of each key from 0 to below `keys`. Larger values (padding, say `u32::MAX`) stay out of all lists.
///
/// `x`: u32, any shape. It fits one binding.
///
/// # Panics
/// Where `x` is not u32.
#[track_caller]
pub fn inverse_list(x: &Tensor, keys: usize) -> InverseList {
    assert_eq!(x.dtype(), DType::U32, "inverse_list: keys {:?}", x.shape());
    let count = x.len();
    let starts = x.empty_on([keys + 1], DType::U32);
    let empty = || x.empty_on([count], DType::U32);
    if count == 0 {
        starts.fill(0.0);
        return InverseList { order: empty(), sorted: empty(), starts };
    }
    let blocks = count.div_ceil(BLOCK);
    let (offsets, totals) = (x.empty_on([256, blocks], DType::U32), x.empty_on([256], DType::U32));
    let (mut order, mut sorted) = (x.detach(), x.detach());
    // Padding sorts as `keys` itself.
    let bits = (usize::BITS - keys.leading_zeros()).max(1) as usize;
    for shift in (0..bits).step_by(8) {
        let (next_order, next_sorted) = (empty(), empty());
        launch!(inverse_list_count { count, blocks, shift, limit: keys }, [sorted] -> [offsets], blocks);
        launch!(inverse_list_scan { blocks }, [] -> [offsets, totals], 256);
        launch!(inverse_list_scatter { count, blocks, shift, limit: keys, first_sweep: shift == 0 },
                [sorted, order, offsets, totals] -> [next_sorted, next_order], blocks);
        (order, sorted) = (next_order, next_sorted);
    }
    launch!(inverse_list_starts { count, keys }, [sorted] -> [starts], (keys + 1).div_ceil(BLOCK));
    InverseList { order, sorted, starts }
}

/// The definition: each key's positions, found by looking at all of them.
fn reference(x: &Array, keys: usize) -> Vec<Array> {
    let (mut order, mut sorted, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for key in 0..=keys {
        starts.push(order.len() as f64);
        for (i, v) in x.data.iter().enumerate() {
            if *v == key as f64 || (key == keys && *v > key as f64) {
                order.push(i as f64);
                sorted.push(key as f64);
            }
        }
    }
    [order, sorted, starts].into_iter().map(|v| Array::new(&[v.len()], v)).collect()
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![Dim::range("positions", 1, 3000), Dim::one_of("keys", &[1, 2, 255, 256, 700])],
        inputs: |s, draw| {
            let [positions, keys] = s.get();
            let x = draw.integers(&[positions], 0, keys as i64 + 2);
            vec![Input::new("x", x.map(|v| if *v > keys as f64 { f64::from(u32::MAX) } else { *v })).of(DType::U32)]
        },
        run: |s, i| {
            let list = inverse_list(&i[0], s["keys"]);
            vec![list.order, list.sorted, list.starts]
        },
        reference: |s, i| reference(&i[0], s["keys"]),
        cost: |s| Cost { bytes: 12 * s["positions"] + 4 * s["keys"], flops: 0 },
        bench: &[&[131072, 256], &[4194304, 700]],
        ..Case::new("inverse_list")
    }]
}
