//! Tensors: a shape over a range of a buffer, contiguous and row-major, with an optional place in the graph.

mod arena;
mod dtype;
mod shape;
mod sums;

use std::{fmt, ops::Range, sync::Arc};

pub use arena::{Arena, ParameterSpec, Parameters};
pub use dtype::{DType, Element};
pub use shape::Shape;
pub(crate) use sums::PartialSums;

use crate::{
    Error, Gpu, Result,
    autograd::{self, Edge},
    gpu::{Buffer, Operand, Storage, shared::SharedBuffer},
    launch,
};

/// A tensor on a device. Clones share the buffer, which goes back to the pool when the last one drops.
#[derive(Clone)]
pub struct Tensor {
    gpu: Gpu,
    storage: Arc<Storage>,
    /// In bytes.
    offset: u64,
    shape: Shape,
    dtype: DType,
    pub(crate) edge: Edge,
}

impl Tensor {
    /// Uploads `data`, row-major.
    ///
    /// # Errors
    /// `data` does not have as many elements as `shape`.
    pub fn from_slice<T: Element>(gpu: &Gpu, data: &[T], shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if data.len() != shape.len() {
            return Err(Error::Data {
                what: "tensor data".into(),
                expected: format!("{} elements for shape {shape}", shape.len()),
                got: format!("{}", data.len()),
            });
        }
        let storage = gpu.upload(bytemuck::cast_slice(data));
        Ok(Tensor { gpu: gpu.clone(), storage, offset: 0, shape, dtype: T::DTYPE, edge: Edge::None })
    }

    /// A tensor over an app's storage buffer on the same device, `offset` bytes into it, without a copy; see
    /// [`crate::gpu::shared`] for who may do what when. The app creates it with the usage STORAGE, with COPY_SRC where
    /// the tensor is to be read, and with COPY_DST where [`Tensor::write`] is to be used.
    ///
    /// # Errors
    /// The usage lacks STORAGE, the buffer ends before the tensor, or the device cannot bind at the offset. A buffer of
    /// another device surfaces as an error at the next read.
    pub fn from_buffer(
        gpu: &Gpu,
        buffer: &Buffer,
        offset: u64,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let storage = gpu.adopt(buffer, offset, (shape.len() * dtype.bytes()) as u64)?;
        Ok(Tensor { gpu: gpu.clone(), storage, offset, shape, dtype, edge: Edge::None })
    }

    /// A tensor with undefined contents, for kernels to fill.
    pub fn empty(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        let storage = gpu.allocate((shape.len() * dtype.bytes()) as u64, false);
        Tensor { gpu: gpu.clone(), storage, offset: 0, shape, dtype, edge: Edge::None }
    }

    /// A tensor full of `value`, rounded to `dtype`.
    pub fn full(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType, value: f64) -> Tensor {
        let tensor = Tensor::empty(gpu, shape, dtype);
        tensor.fill(value);
        tensor
    }

    /// A tensor of zeros.
    pub fn zeros(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::full(gpu, shape, dtype, 0.0)
    }

    /// Overwrites all elements by `value` with a kernel, so that no pass ends.
    pub fn fill(&self, value: f64) {
        let words = (self.bytes() as usize).div_ceil(4);
        let four = by_four(&[words]);
        for (part, words) in self.operand().pages(4, words) {
            let count = words / four;
            launch!(fill [elem = DType::U32.wgsl_by(four)] { count, bits: self.dtype.pattern(value) }, [] -> [part],
                    count.div_ceil(1024));
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        self.shape.axes()
    }

    /// The axes as an array, for patterns: `let [batch, tokens, width] = x.axes();`.
    ///
    /// # Panics
    /// Where the tensor has another number of axes.
    #[track_caller]
    pub fn axes<const N: usize>(&self) -> [usize; N] {
        self.shape().try_into().unwrap_or_else(|_| panic!("expected {N} axes, got shape {}", self.shape))
    }

    /// (rows, columns): the last axis against all others.
    pub fn rows_by_last(&self) -> (usize, usize) {
        let columns = self.shape().last().copied().unwrap_or(1);
        (self.len().checked_div(columns).unwrap_or(0), columns)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.bytes()) as u64
    }

    /// A tensor of the same shape and type with undefined contents.
    pub fn like(&self) -> Tensor {
        Tensor::empty(&self.gpu, self.shape.clone(), self.dtype)
    }

    /// A tensor on the same device with undefined contents.
    pub fn empty_on(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::empty(&self.gpu, shape, dtype)
    }

    /// The same elements under another shape; free, and transparent to gradients.
    ///
    /// # Panics
    /// Where the number of elements differs.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(
            shape.len(),
            self.len(),
            "reshape {} to {shape}: the number of elements differs",
            self.shape
        );
        Tensor { shape, ..self.clone() }
    }

    /// Rows `range` of the first axis as a view that shares the buffer, outside of the graph; None where the
    /// adapter cannot bind at that offset.
    #[track_caller]
    pub fn view_rows(&self, range: Range<usize>) -> Option<Tensor> {
        let rows = self.shape()[0];
        assert!(range.start <= range.end && range.end <= rows, "rows {range:?} of {rows}");
        let row = self.bytes() / rows.max(1) as u64;
        let offset = self.offset + row * range.start as u64;
        if !offset.is_multiple_of(self.gpu.capabilities().storage_alignment) {
            return None;
        }
        let shape = self.shape.with_first(range.len());
        Some(Tensor { shape, offset, edge: Edge::None, ..self.clone() })
    }

    /// The same tensor outside of the graph.
    pub fn detach(&self) -> Tensor {
        Tensor { edge: Edge::None, ..self.clone() }
    }

    /// The same elements in a buffer of their own, rounded to `dtype`, outside of the graph.
    ///
    /// # Panics
    /// Where a float would become an integer or the reverse.
    #[track_caller]
    pub fn copied_to(&self, dtype: DType) -> Tensor {
        let y = self.empty_on(self.shape.clone(), dtype);
        self.copy_into(&y);
        y
    }

    /// Writes these elements over those of `into`, rounded to its type.
    #[track_caller]
    pub(crate) fn copy_into(&self, into: &Tensor) {
        let (from, dtype, count) = (self.dtype, into.dtype, self.len());
        assert!(from == dtype || (from.is_float() && dtype.is_float()), "copy: {from} to {dtype}");
        assert_eq!(into.len(), count, "copy: {self:?} into {into:?}");
        let step = rows_a_page(&self.gpu, &[from.bytes(), dtype.bytes()]);
        let four = by_four(&[count]);
        for start in (0..count).step_by(step) {
            let n = step.min(count - start);
            let (x, y) = (self.operand().elements(from, start, n), into.operand().elements(dtype, start, n));
            let count = n / four;
            launch!(copy [elem = from.wgsl_by(four), elem_out = dtype.wgsl_by(four)] { count }, [x] -> [y],
                    count.div_ceil(1024));
        }
    }

    /// The buffer, to bind elsewhere without a copy, and where in it the tensor lies. As long as the guard lives nothing
    /// else is put there; [`crate::gpu::shared`] says in what order things happen.
    pub fn buffer(&self) -> SharedBuffer {
        SharedBuffer::new(self.storage.clone(), self.offset, self.bytes())
    }

    /// Whether no other handle shares the buffer, so that it may be overwritten in place.
    pub(crate) fn is_unique(&self) -> bool {
        Arc::strong_count(&self.storage) == 1 && !self.storage.adopted
    }

    /// The bytes as a kernel's operand.
    pub fn operand(&self) -> Operand {
        Operand {
            gpu: self.gpu.clone(),
            storage: self.storage.clone(),
            offset: self.offset,
            size: self.bytes(),
        }
    }

    /// Overwrites the elements after all work recorded so far.
    ///
    /// # Errors
    /// The number or type of elements differs.
    pub fn write<T: Element>(&self, data: &[T]) -> Result<()> {
        self.expect_element::<T>()?;
        if data.len() != self.len() {
            return Err(Error::Data {
                what: "tensor data".into(),
                expected: format!("{} elements", self.len()),
                got: data.len().to_string(),
            });
        }
        self.gpu.overwrite(&self.operand(), bytemuck::cast_slice(data))
    }

    /// Downloads the elements once all work recorded so far is done.
    ///
    /// # Errors
    /// Another element type, or whatever went wrong on the device since the last read.
    pub async fn read<T: Element>(&self) -> Result<Vec<T>> {
        self.expect_element::<T>()?;
        let bytes = self.gpu.download(&self.operand()).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Records the copy of the elements to the host, to be fetched when it is there: see
    /// [`Download::try_take`](crate::gpu::Download::try_take). It takes a staging buffer as large as the tensor.
    ///
    /// # Errors
    /// Another element type, or no memory for the staging buffer.
    pub fn download<T: Element>(&self) -> Result<crate::gpu::Download<T>> {
        self.expect_element::<T>()?;
        self.gpu.begin_download(&self.operand())
    }

    /// Downloads the elements, waiting for them.
    ///
    /// # Errors
    /// As [`Tensor::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        pollster::block_on(self.read())
    }

    fn expect_element<T: Element>(&self) -> Result<()> {
        if T::DTYPE == self.dtype {
            return Ok(());
        }
        Err(Error::Data {
            what: "element type".into(),
            expected: self.dtype.to_string(),
            got: T::DTYPE.to_string(),
        })
    }

    /// Makes this tensor a leaf: [`Tensor::backward`] leaves its gradient in [`Tensor::grad`].
    #[must_use]
    pub fn requires_grad(&self) -> Tensor {
        Tensor { edge: Edge::leaf(None), ..self.clone() }
    }

    /// Makes this tensor a leaf whose gradient is added to `slot`, of the same shape, in f32.
    #[must_use]
    pub fn accumulates_into(&self, slot: &Tensor) -> Tensor {
        Tensor { edge: Edge::leaf(Some(slot.detach())), ..self.clone() }
    }

    /// Whether gradients flow to this tensor.
    pub fn needs_grad(&self) -> bool {
        !matches!(self.edge, Edge::None) && autograd::enabled()
    }

    /// The gradient that backward passes left here, if this is a leaf that received one.
    pub fn grad(&self) -> Option<Tensor> {
        self.edge.grad()
    }

    /// Forgets the leaf's gradient.
    pub fn clear_grad(&self) {
        self.edge.clear();
    }

    /// Puts this result into the graph: `backward` gets dy and returns one gradient an input, in order, of its shape and
    /// type. Nothing is kept where no input needs a gradient.
    #[must_use]
    #[track_caller]
    pub fn with_grad<G: Into<autograd::Gradients>>(
        self,
        inputs: &[&Tensor],
        backward: impl FnOnce(&Tensor) -> G + Send + Sync + 'static,
    ) -> Tensor {
        let [y] = autograd::record(inputs, [self], move |dy: [Option<Tensor>; 1]| {
            let [dy] = dy;
            backward(&dy.expect("the only output has a gradient")).into()
        });
        y
    }

    /// Computes the gradients of this scalar with respect to all leaves it depends on.
    ///
    /// # Panics
    /// Where the tensor has more than one element: use [`Tensor::backward_from`].
    #[track_caller]
    pub fn backward(&self) {
        assert_eq!(self.len(), 1, "backward of shape {}: only a scalar has a default seed", self.shape);
        self.backward_from(&Tensor::full(&self.gpu, self.shape.clone(), self.dtype, 1.0));
    }

    /// Computes the gradients of ⟨self, dy⟩ with respect to all leaves this tensor depends on.
    ///
    /// # Panics
    /// Where the shapes differ.
    #[track_caller]
    pub fn backward_from(&self, dy: &Tensor) {
        autograd::backward(&[(self, dy)]);
    }
}

impl From<&Tensor> for Operand {
    fn from(tensor: &Tensor) -> Operand {
        tensor.operand()
    }
}

impl From<&&Tensor> for Operand {
    fn from(tensor: &&Tensor) -> Operand {
        tensor.operand()
    }
}

impl From<&&Operand> for Operand {
    fn from(operand: &&Operand) -> Operand {
        (*operand).clone()
    }
}

impl From<&Operand> for Operand {
    fn from(operand: &Operand) -> Operand {
        operand.clone()
    }
}

impl Operand {
    /// `count` elements of type `dtype` from element `start` on.
    pub fn elements(&self, dtype: DType, start: usize, count: usize) -> Operand {
        self.part((start * dtype.bytes()) as u64, (count * dtype.bytes()) as u64)
    }

    /// Cuts `rows` rows of `row_bytes` bytes into parts that one binding can hold: (part, its rows). Parts start at
    /// rows whose offset the adapter can bind.
    ///
    /// # Panics
    /// Where even the fewest rows that align exceed a binding.
    #[track_caller]
    pub fn pages(&self, row_bytes: usize, rows: usize) -> Vec<(Operand, usize)> {
        let row = row_bytes as u64;
        let step = rows_a_page(&self.gpu, &[row_bytes]);
        let mut parts = Vec::new();
        let mut at = 0;
        while at < rows {
            let n = step.min(rows - at);
            let size = (n as u64 * row).min(self.size.next_multiple_of(4) - at as u64 * row);
            let part = Operand { offset: self.offset + at as u64 * row, size, ..self.clone() };
            parts.push((part, n));
            at += n;
        }
        parts
    }
}

impl Tensor {
    /// `rows` rows of `row_bytes` bytes from row `first` on, as an operand; see [`rows_a_page`].
    #[track_caller]
    pub fn page(&self, first: usize, rows: usize, row_bytes: usize) -> Operand {
        self.operand().part((first * row_bytes) as u64, (rows * row_bytes) as u64)
    }
}

/// How many elements a kernel may take at once: four where all of these counts, offsets and strides are multiples.
pub(crate) fn by_four(counts: &[usize]) -> usize {
    if counts.iter().all(|n| n.is_multiple_of(4)) { 4 } else { 1 }
}

/// Lanes that share a row of whole quads, about `each` quads a lane: a power of two.
pub(crate) fn quad_lanes(columns: usize, each: usize) -> usize {
    (columns / 4).div_ceil(each).next_power_of_two().clamp(32, 256)
}

/// Lanes that hold a whole row in registers, four quads each. None for longer rows, for those that are not of whole
/// quads, and on a CPU's vectors, which keep a row to the lanes of one.
pub(crate) fn register_lanes(gpu: &Gpu, columns: usize) -> Option<usize> {
    let lanes = quad_lanes(columns, 4);
    let fits = columns.is_multiple_of(4) && columns <= 16 * lanes;
    (fits && !gpu.capabilities().cpu_vectors()).then_some(lanes)
}

/// The most rows that one launch may take so that operands of `row_bytes` bytes a row fit a binding each, and so that
/// every multiple of it starts where the adapter can bind. `usize::MAX / 2` rows where no operand limits it.
///
/// # Panics
/// Where even the fewest rows that align exceed a binding.
#[track_caller]
pub fn rows_a_page(gpu: &Gpu, row_bytes: &[usize]) -> usize {
    let capabilities = gpu.capabilities();
    let alignment = capabilities.storage_alignment as usize;
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let (mut most, mut multiple) = (usize::MAX / 2, 1);
    for &row in row_bytes.iter().filter(|r| **r > 0) {
        most = most.min(capabilities.max_binding as usize / row);
        let aligned = alignment / gcd(alignment, row);
        multiple = multiple * aligned / gcd(multiple, aligned);
    }
    assert!(
        most >= multiple,
        "rows of {row_bytes:?} bytes: {multiple} of them must fit one binding of {} bytes",
        capabilities.max_binding
    );
    most / multiple * multiple
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}
