//! Reverse mode over the recorded graph.
//!
//! Every result of an op that needs gradients holds an edge to the node that made it; the node holds edges to its
//! inputs and the backward closure with what it saved. Node numbers grow, so the descending order of numbers is a
//! topological order: backward is a priority queue, always summed in the same order. A node's closure runs once and
//! what it saved is freed as the pass goes on.

use std::{
    cell::Cell,
    collections::{BTreeMap, BinaryHeap},
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    DType, Tensor,
    gpu::lock,
    launch,
    tensor::{PartialSums, Shape},
};

/// Where a tensor's gradient goes.
#[derive(Clone, Default)]
pub(crate) enum Edge {
    /// Nowhere.
    #[default]
    None,
    /// It stays here.
    Leaf(Arc<Leaf>),
    /// To the node that made it, as the gradient of its i-th output.
    Node(Arc<Node>, usize),
}

pub(crate) struct Leaf {
    /// Summed into this, where set.
    slot: Option<Slot>,
    grad: Mutex<Option<Tensor>>,
}

/// Where a parameter's gradients are summed. An empty one holds whatever it held: the first gradient overwrites it, so
/// that nobody has to write zeros before.
struct Slot {
    sum: Tensor,
    empty: AtomicBool,
}

impl Slot {
    fn add(&self, grad: &Tensor) {
        match self.empty.swap(false, Ordering::Relaxed) {
            true => grad.copy_into(&self.sum),
            false => accumulate(&self.sum, grad),
        }
    }

    /// The sum, of zeros where there was nothing to sum.
    fn settled(&self) -> Tensor {
        if self.empty.swap(false, Ordering::Relaxed) {
            self.sum.fill(0.0);
        }
        self.sum.clone()
    }
}

/// Gradients of a node's inputs, in order; None where an input gets none.
pub struct Gradients {
    whole: Vec<Option<Tensor>>,
    /// Sums yet to be added up, and whose gradients their columns are, side by side: (input, shape).
    sums: Vec<(PartialSums, Vec<(usize, Shape)>)>,
}

impl Gradients {
    /// And those that the columns of `sums` are, side by side: (input, shape), at most three. A parameter whose gradients
    /// are summed somewhere gets them there at once; these inputs have no other gradient here.
    pub(crate) fn and_sums(
        mut self,
        sums: PartialSums,
        inputs: impl IntoIterator<Item = (usize, Shape)>,
    ) -> Gradients {
        self.sums.push((sums, inputs.into_iter().collect()));
        self
    }

    /// All as tensors, but for what has gone to where `inputs` sum their gradients.
    fn settled(mut self, inputs: &[Edge]) -> Vec<Option<Tensor>> {
        for (sums, parts) in self.sums {
            if let [(i, shape)] = &parts[..]
                && sums.columns() == shape.len()
                && inputs[*i].empty_slot(shape.len()).is_none()
            {
                self.whole[*i] = Some(sums.in_order().reshape(shape.clone()));
                continue;
            }
            let place = |(i, shape): (usize, Shape)| match inputs[i].empty_slot(shape.len()) {
                Some(slot) => {
                    slot.empty.store(false, Ordering::Relaxed);
                    slot.sum.clone()
                }
                None => self.whole[i].insert(sums.room(shape)).clone(),
            };
            let places: Vec<Tensor> = parts.into_iter().map(place).collect();
            sums.in_order_into(&places);
        }
        self.whole
    }
}

impl<const N: usize> From<[Tensor; N]> for Gradients {
    fn from(g: [Tensor; N]) -> Gradients {
        Gradients { whole: g.into_iter().map(Some).collect(), sums: Vec::new() }
    }
}

impl<const N: usize> From<[Option<Tensor>; N]> for Gradients {
    fn from(g: [Option<Tensor>; N]) -> Gradients {
        Gradients { whole: g.into(), sums: Vec::new() }
    }
}

impl From<Vec<Option<Tensor>>> for Gradients {
    fn from(g: Vec<Option<Tensor>>) -> Gradients {
        Gradients { whole: g, sums: Vec::new() }
    }
}

type Backward = Box<dyn FnOnce(Vec<Option<Tensor>>) -> Gradients + Send + Sync>;

pub(crate) struct Node {
    id: u64,
    /// Where the op recorded it: what panics in its backward pass names it.
    at: &'static Location<'static>,
    inputs: Vec<Edge>,
    outputs: Vec<(Shape, DType)>,
    backward: Mutex<Option<Backward>>,
}

impl Edge {
    pub fn leaf(slot: Option<Tensor>) -> Edge {
        let slot = slot.map(|sum| Slot { sum, empty: AtomicBool::new(false) });
        Edge::Leaf(Arc::new(Leaf { slot, grad: Mutex::default() }))
    }

    pub fn grad(&self) -> Option<Tensor> {
        match self {
            Edge::Leaf(leaf) => leaf.slot.as_ref().map(Slot::settled).or_else(|| lock(&leaf.grad).clone()),
            _ => None,
        }
    }

    /// Where gradients of `len` elements are to be summed and none are yet.
    fn empty_slot(&self, len: usize) -> Option<&Slot> {
        let Edge::Leaf(leaf) = self else { return None };
        let slot = leaf.slot.as_ref().filter(|slot| slot.empty.load(Ordering::Relaxed))?;
        assert_eq!(slot.sum.len(), len, "a gradient of {len} elements for {:?}", slot.sum);
        Some(slot)
    }

    pub fn clear(&self) {
        if let Edge::Leaf(leaf) = self {
            *lock(&leaf.grad) = None;
            if let Some(slot) = &leaf.slot {
                slot.empty.store(true, Ordering::Relaxed);
            }
        }
    }
}

thread_local! {
    static DISABLED: Cell<u32> = const { Cell::new(0) };
}

/// Whether ops on this thread record the graph.
pub fn enabled() -> bool {
    DISABLED.get() == 0
}

struct Restore(u32);

impl Drop for Restore {
    fn drop(&mut self) {
        DISABLED.set(self.0);
    }
}

/// Runs `f` without recording the graph on this thread.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(DISABLED.replace(DISABLED.get() + 1));
    f()
}

fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(DISABLED.replace(0));
    f()
}

/// Puts the results of one op into the graph. `backward` gets a gradient for each output, of the output's type, None for
/// those that nothing used, and returns one for each input, in order, of the input's shape and type.
#[track_caller]
pub fn record<const N: usize, G: Into<Gradients>>(
    inputs: &[&Tensor],
    outputs: [Tensor; N],
    backward: impl FnOnce([Option<Tensor>; N]) -> G + Send + Sync + 'static,
) -> [Tensor; N] {
    let outputs = record_all(inputs, outputs.into(), move |grads| {
        backward(grads.try_into().unwrap_or_else(|_| unreachable!("one gradient an output")))
    });
    outputs.try_into().unwrap_or_else(|_| unreachable!("as many outputs as given"))
}

/// [`record`] for any number of outputs.
#[track_caller]
pub fn record_all<G: Into<Gradients>>(
    inputs: &[&Tensor],
    outputs: Vec<Tensor>,
    backward: impl FnOnce(Vec<Option<Tensor>>) -> G + Send + Sync + 'static,
) -> Vec<Tensor> {
    // Numbers order nodes within one graph; they are no state that anything else could see.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if !enabled() || inputs.iter().all(|x| matches!(x.edge, Edge::None)) {
        return outputs;
    }
    let node = Arc::new(Node {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        at: Location::caller(),
        inputs: inputs.iter().map(|x| x.edge.clone()).collect(),
        outputs: outputs.iter().map(|y| (y.shape().into(), y.dtype())).collect(),
        backward: Mutex::new(Some(Box::new(move |grads| backward(grads).into()))),
    });
    let joins = |(i, mut y): (usize, Tensor)| {
        y.edge = Edge::Node(node.clone(), i);
        y
    };
    outputs.into_iter().enumerate().map(joins).collect()
}

/// Recomputes instead of keeping: runs `f` without saving anything for its backward pass, and runs it again there.
/// `f` must give the same results both times; parameters it captures receive their gradients as usual.
pub fn checkpoint(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + Send + Sync + 'static) -> Tensor {
    let kept: Vec<Tensor> = inputs.iter().map(|x| x.detach()).collect();
    let y = no_grad(|| f(&kept));
    if !enabled() {
        return y;
    }
    // Parameters are captured by `f`, invisible here: the node is recorded even if no input needs a gradient.
    let anchor = kept.is_empty().then(|| y.requires_grad());
    let mut all: Vec<&Tensor> = inputs.to_vec();
    let own = anchor.unwrap_or_else(|| kept[0].requires_grad());
    all.push(&own);
    y.with_grad(&all, move |dy| {
        let leaves: Vec<Tensor> = kept.iter().map(Tensor::requires_grad).collect();
        with_grad(|| f(&leaves)).backward_from(dy);
        let mut grads: Vec<Option<Tensor>> = leaves.iter().map(Tensor::grad).collect();
        grads.push(None);
        grads
    })
}

/// The gradients that wait for one node.
struct Waiting {
    node: Arc<Node>,
    grads: Vec<Option<Tensor>>,
}

/// Computes the gradients of Σ ⟨y, dy⟩ with respect to all leaves that the results y depend on.
///
/// # Panics
/// Where a y and its dy differ in size, or a graph is used a second time.
#[track_caller]
pub fn backward(results: &[(&Tensor, &Tensor)]) {
    // A backward pass records no graph of its own.
    no_grad(|| {
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut order = BinaryHeap::new();
        for (y, dy) in results {
            assert_eq!(y.len(), dy.len(), "backward of shape {:?} from {:?}", y.shape(), dy.shape());
            deliver(&y.edge, dy.detach(), &mut waiting, &mut order);
        }
        while let Some(id) = order.pop() {
            let Some(Waiting { node, grads }) = waiting.remove(&id) else { continue };
            let backward = lock(&node.backward).take();
            let backward =
                backward.expect("a graph is consumed by its backward pass: run the forward pass again");
            let shaped =
                |(grad, (shape, _)): (Option<Tensor>, &(Shape, DType))| grad.map(|g| g.reshape(shape));
            let gradients = backward(grads.into_iter().zip(&node.outputs).map(shaped).collect());
            let inputs = gradients.settled(&node.inputs);
            let (n, got) = (node.inputs.len(), inputs.len());
            assert!(got == n, "{}: {got} gradients for {n} inputs: backward returns one an input", node.at);
            for (i, (edge, grad)) in node.inputs.iter().zip(inputs).enumerate() {
                if let Some(grad) = grad {
                    fits(edge, &grad, i, &node);
                    deliver(edge, grad, &mut waiting, &mut order);
                }
            }
        }
    });
}

/// Holds the gradient that `from` gives its i-th input to what that input is, where this is known.
fn fits(edge: &Edge, grad: &Tensor, i: usize, from: &Node) {
    let (len, dtype) = match edge {
        Edge::Node(node, output) => (node.outputs[*output].0.len(), node.outputs[*output].1),
        Edge::Leaf(_) | Edge::None => return,
    };
    assert!(
        (grad.len(), grad.dtype()) == (len, dtype),
        "{}: gradient {i} is {} {:?}, its input {len} elements of {dtype}",
        from.at,
        grad.dtype(),
        grad.shape()
    );
}

fn deliver(edge: &Edge, grad: Tensor, waiting: &mut BTreeMap<u64, Waiting>, order: &mut BinaryHeap<u64>) {
    match edge {
        Edge::None => {}
        Edge::Leaf(leaf) => match &leaf.slot {
            Some(slot) => slot.add(&grad),
            None => {
                let mut held = lock(&leaf.grad);
                *held = Some(sum(held.take(), grad));
            }
        },
        Edge::Node(node, output) => {
            // Kernels of the backward pass read it as what the result was.
            let dtype = node.outputs[*output].1;
            assert_eq!(grad.dtype(), dtype, "a gradient of {:?} for a result in {dtype}", grad.shape());
            let entry = waiting.entry(node.id).or_insert_with(|| {
                order.push(node.id);
                Waiting { node: node.clone(), grads: vec![None; node.outputs.len()] }
            });
            let slot = &mut entry.grads[*output];
            *slot = Some(sum(slot.take(), grad));
        }
    }
}

/// a + b, in place where nobody else holds `a`.
fn sum(a: Option<Tensor>, b: Tensor) -> Tensor {
    match a {
        None => b,
        Some(a) if a.is_unique() => {
            accumulate(&a, &b);
            a
        }
        Some(a) => {
            let total = a.copied_to(a.dtype());
            accumulate(&total, &b);
            total
        }
    }
}

/// `into += x`, for floats of either width.
pub(crate) fn accumulate(into: &Tensor, x: &Tensor) {
    assert_eq!(into.len(), x.len(), "a gradient of {x:?} for {into:?}");
    assert!(into.dtype().is_float() && x.dtype().is_float(), "gradients are floats, got {x:?} for {into:?}");
    let (a, b) = (into.dtype(), x.dtype());
    let step = crate::tensor::rows_a_page(into.gpu(), &[a.bytes(), b.bytes()]);
    let four = crate::tensor::by_four(&[into.len()]);
    let real = DType::F32.wgsl_by(four);
    for start in (0..into.len()).step_by(step.max(1)) {
        let count = step.min(into.len() - start);
        let x = x.operand().elements(b, start, count);
        let y = into.operand().elements(a, start, count);
        let count = count / four;
        launch!(accumulate [elem = b.wgsl_by(four), elem_out = a.wgsl_by(four), real = real] { count }, [x] -> [y],
                count.div_ceil(1024));
    }
}
