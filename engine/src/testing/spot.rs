//! Checks at sizes whose reference would take too long: parts of the work that are cases by themselves, see [`Part`].
//!
//! Backward, only the part's outputs have a gradient, so that those of all inputs are the part's own: what flows back to
//! keys, weights and other rows that many outputs share is held against the definition, too.

use half::f16;

use super::{
    Case, Cut, Draw, Failure, Input, Loss, Part, Report, Share, Sizes, arrived, compare_values, device_error,
    direction,
};
use crate::{DType, Error, Gpu, Tensor, autograd, no_grad, reference::Array};

/// What was checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spot {
    /// The worst error.
    pub worst: Report,
    /// Elements of outputs compared, and how many outputs have.
    pub outputs: (usize, usize),
    /// Elements of gradients compared, along random directions, and how many there are.
    pub gradients: (usize, usize),
}

/// Parts whose values are compared.
const PARTS: usize = 3;

/// Runs the op on `tensors`, the uploaded `inputs`, and holds parts of its outputs and, with `backward`, of its
/// gradients against the reference. None where the case has no parts.
///
/// # Errors
/// What differs, by how much, where.
pub fn check_spot(
    gpu: &Gpu,
    case: &Case,
    sizes: &Sizes,
    inputs: &[Input],
    tensors: &[Tensor],
    backward: bool,
) -> Result<Option<Spot>, Failure> {
    let Some(part_of) = case.part else { return Ok(None) };
    let fail = |e: String| Failure(format!("{} [{sizes}] {e}", case.stem));
    let on_device = |e: Error| device_error(case, sizes, &e);
    let (mut draw, mut spot) = (Draw::new(11), Spot::default());
    let outputs = no_grad(|| (case.run)(sizes, tensors));
    spot.outputs.1 = outputs.iter().map(Tensor::len).sum();
    for _ in 0..PARTS {
        let part = part_of(sizes, &mut draw);
        let (small, _, expected) = part.reference(case, inputs);
        if outputs.len() != expected.len() {
            return Err(fail(format!("{} outputs, the reference has {}", outputs.len(), expected.len())));
        }
        for (i, ((y, e), share)) in outputs.iter().zip(&expected).zip(&part.outputs).enumerate() {
            let Share::Cut(cut) = share else { continue };
            let got = read_cut(y, cut).map_err(on_device)?;
            let what = format!("part [{small}] output {i} at {cut:?}");
            let allowed = case.allowed((case.error)(sizes), y.dtype());
            compare_values(&what, &got, y.dtype(), e, allowed, &mut spot.worst).map_err(fail)?;
            spot.outputs.0 += got.len();
        }
    }
    drop(outputs);
    if !backward || !inputs.iter().any(|i| i.differentiable) {
        return Ok(Some(spot));
    }
    let leaves: Vec<Tensor> = inputs.iter().zip(tensors).map(|(i, t)| leaf(i, t)).collect();
    let outputs = (case.run)(sizes, &leaves);
    let part = part_of(sizes, &mut draw);
    let (small, arrays, expected) = part.reference(case, inputs);
    let (mut directions, mut seeds) = (Vec::new(), Vec::new());
    for ((y, e), share) in outputs.iter().zip(&expected).zip(&part.outputs) {
        let direction = direction(y, &e.shape, &mut draw);
        let float = y.dtype().is_float() && y.needs_grad() && !matches!(share, Share::Nothing);
        match share {
            Share::Cut(cut) if float => {
                let dy = Tensor::zeros(gpu, y.shape(), y.dtype());
                write_cut(&dy, cut, &direction.array);
                seeds.push((y, dy));
            }
            Share::Summand if float => seeds.push((y, direction.tensor(gpu))),
            _ => {}
        }
        directions.push(if float { direction.array } else { Array::zeros(&e.shape) });
    }
    autograd::backward(&seeds.iter().map(|(y, dy)| (*y, dy)).collect::<Vec<_>>());
    let reference = |arrays: &[Array]| (case.reference)(&small, arrays);
    let loss = Loss { reference: &reference, arrays, expected, directions };
    let units = case.error_grad.map_or_else(|| 4.0 * (case.error)(sizes) + 8.0, |f| f(sizes));
    for (i, (input, leaf)) in inputs.iter().zip(&leaves).enumerate().filter(|(_, (i, _))| i.differentiable) {
        let grad = arrived(input, leaf).map_err(fail)?;
        let got = read_cut(&grad.reshape(leaf.shape()), &part.inputs[i]).map_err(on_device)?;
        loss.hold(i, input.name, &got, case.allowed(units, input.dtype), &[], &mut draw, &mut spot.worst)
            .map_err(|e| fail(format!("part [{small}] {e}")))?;
        spot.gradients.0 += got.len();
        spot.gradients.1 += grad.len();
    }
    gpu.check().map_err(on_device)?;
    Ok(Some(spot))
}

fn leaf(input: &Input, tensor: &Tensor) -> Tensor {
    if input.differentiable { tensor.detach().requires_grad() } else { tensor.detach() }
}

impl Part {
    /// Its sizes, inputs and outputs.
    fn reference(&self, case: &Case, inputs: &[Input]) -> (Sizes, Vec<Array>, Vec<Array>) {
        let sizes = case.exactly(self.sizes.clone());
        let arrays: Vec<Array> = inputs.iter().zip(&self.inputs).map(|(i, cut)| i.array.cut(cut)).collect();
        let expected = (case.reference)(&sizes, &arrays);
        (sizes, arrays, expected)
    }
}

/// The flat places of a cut of a row-major shape, in order.
fn places(shape: &[usize], cut: &Cut) -> Vec<usize> {
    assert_eq!(shape.len(), cut.len(), "a cut {cut:?} of {shape:?}");
    let mut places = vec![0];
    for (n, range) in shape.iter().zip(cut) {
        assert!(range.end <= *n, "a cut {cut:?} of {shape:?}");
        places = places.iter().flat_map(|p| range.clone().map(move |i| p * n + i)).collect();
    }
    places
}

/// The elements from the first to the last of a cut, in whole words: (first, count).
fn span(tensor: &Tensor, places: &[usize]) -> (usize, usize) {
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return (0, 0) };
    let words = 4 / tensor.dtype().bytes();
    let first = first / words * words;
    (first, (last + 1).next_multiple_of(words).min(tensor.len()) - first)
}

fn read_cut(tensor: &Tensor, cut: &Cut) -> crate::Result<Array> {
    let (places, dtype) = (places(tensor.shape(), cut), tensor.dtype());
    let (first, count) = span(tensor, &places);
    let bytes = pollster::block_on(tensor.gpu().download(&tensor.operand().elements(dtype, first, count)))?;
    let size = dtype.bytes();
    let value = |place: usize| {
        let b = &bytes[(place - first) * size..][..size];
        match dtype {
            DType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f64(),
            DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
            DType::I32 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
            DType::U32 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        }
    };
    let shape: Vec<usize> = cut.iter().map(ExactSizeIterator::len).collect();
    Ok(Array::new(&shape, places.into_iter().map(value).collect()))
}

/// Writes the elements of a cut, and zeros between them.
fn write_cut(tensor: &Tensor, cut: &Cut, values: &Array) {
    let (places, dtype) = (places(tensor.shape(), cut), tensor.dtype());
    let (first, count) = span(tensor, &places);
    let size = dtype.bytes();
    let mut bytes = vec![0; count * size];
    for (place, v) in places.into_iter().zip(&values.data) {
        let at = &mut bytes[(place - first) * size..][..size];
        match dtype {
            DType::F16 => at.copy_from_slice(&f16::from_f64(*v).to_le_bytes()),
            _ => at.copy_from_slice(&(*v as f32).to_le_bytes()),
        }
    }
    let part = tensor.operand().elements(dtype, first, count);
    tensor.gpu().overwrite(&part, &bytes).expect("the kit's own tensors may be written");
}
