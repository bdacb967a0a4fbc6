//! Parameters and their gradients in a few large buffers, so that the optimizer is a handful of dispatches.

use std::collections::HashMap;

use super::{DType, Tensor};
use crate::{
    Gpu, Result,
    gpu::{Purpose, with_purpose},
};

/// One parameter to be: its values on the host.
#[derive(Clone, Debug)]
pub struct ParameterSpec {
    /// Its name in checkpoints.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether weight decay applies to it.
    pub decay: bool,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// One buffer of parameters that are treated alike, and the gradients at the same places.
pub struct Arena {
    /// All values, flat, in f32; padding between parameters is zero.
    pub values: Tensor,
    /// All gradients; None where nothing is trained. See [`Parameters::gradients`].
    gradients: Option<Tensor>,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// Named parameters over arenas: those with weight decay first, then the others.
pub struct Parameters {
    arenas: Vec<Arena>,
    /// (name, leaf, arena, first element).
    entries: Vec<(String, Tensor, usize, usize)>,
    by_name: HashMap<String, usize>,
}

/// Elements between starts of parameters: every adapter can bind at such offsets.
const ALIGNMENT: usize = 64;

impl Parameters {
    /// Uploads `specs`, and allocates gradients where they are to be trained.
    ///
    /// # Errors
    /// Values that do not fill their shape.
    pub fn new(gpu: &Gpu, specs: Vec<ParameterSpec>, trained: bool) -> Result<Parameters> {
        let most = gpu.capabilities().max_buffer as usize / 4 / ALIGNMENT * ALIGNMENT;
        let (mut arenas, mut places) = (Vec::new(), Vec::new());
        for decay in [true, false] {
            let mut flat: Vec<f32> = Vec::new();
            for spec in specs.iter().filter(|s| s.decay == decay) {
                let expected: usize = spec.shape.iter().product();
                if expected != spec.values.len() {
                    return Err(crate::Error::Data {
                        what: format!("parameter {}", spec.name),
                        expected: format!("{expected} values for shape {:?}", spec.shape),
                        got: spec.values.len().to_string(),
                    });
                }
                if !flat.is_empty() && flat.len() + spec.values.len() > most {
                    arenas.push(Arena::new(gpu, &std::mem::take(&mut flat), decay, trained)?);
                }
                places.push((spec, arenas.len(), flat.len()));
                flat.extend_from_slice(&spec.values);
                flat.resize(flat.len().next_multiple_of(ALIGNMENT), 0.0);
            }
            if !flat.is_empty() {
                arenas.push(Arena::new(gpu, &flat, decay, trained)?);
            }
        }
        let entries: Vec<_> = places
            .into_iter()
            .map(|(spec, arena, start)| {
                let Arena { values, gradients, .. } = &arenas[arena];
                let leaf = values.window(start, &spec.shape);
                let leaf = match gradients {
                    Some(g) => leaf.accumulates_into(&g.window(start, &spec.shape)),
                    None => leaf,
                };
                (spec.name.clone(), leaf, arena, start)
            })
            .collect();
        let by_name = entries.iter().enumerate().map(|(i, e)| (e.0.clone(), i)).collect();
        Ok(Parameters { arenas, entries, by_name })
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&i| &self.entries[i].1)
    }

    /// All parameters by name, in arena order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor, ..)| (name.as_str(), tensor))
    }

    /// The window of `flat`, a buffer laid out like the arenas' (moments, say), that belongs to each parameter:
    /// (name, arena, window of the arena's elements).
    pub fn places(&self) -> impl Iterator<Item = (&str, usize, std::ops::Range<usize>)> {
        self.entries
            .iter()
            .map(|(name, tensor, arena, start)| (name.as_str(), *arena, *start..*start + tensor.len()))
    }

    /// The buffers.
    pub fn arenas(&self) -> &[Arena] {
        &self.arenas
    }

    /// All gradients, flat, an arena each, padding zero; None where nothing is trained.
    pub fn gradients(&self) -> Option<Vec<&Tensor>> {
        // Those that no pass reached are written as zeros first.
        self.entries.iter().for_each(|(_, leaf, ..)| drop(leaf.grad()));
        self.arenas.iter().map(|a| a.gradients.as_ref()).collect()
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&self) {
        self.entries.iter().for_each(|(_, leaf, ..)| leaf.clear_grad());
    }

    /// The number of values, padding left out.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|e| e.1.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Arena {
    fn new(gpu: &Gpu, flat: &[f32], decay: bool, trained: bool) -> Result<Arena> {
        let values = with_purpose(Purpose::Parameters, || Tensor::from_slice(gpu, flat, [flat.len()]))?;
        let gradients = trained
            .then(|| with_purpose(Purpose::Gradients, || Tensor::zeros(gpu, [flat.len()], DType::F32)));
        Ok(Arena { values, gradients, decay })
    }
}

impl Tensor {
    /// The elements from `start` on under `shape`: the caller aligned `start`.
    pub fn window(&self, start: usize, shape: &[usize]) -> Tensor {
        let shape = super::Shape::from(shape);
        let offset = self.offset + (start * self.dtype.bytes()) as u64;
        debug_assert!(start + shape.len() <= self.len());
        Tensor { shape, offset, edge: crate::autograd::Edge::None, ..self.clone() }
    }
}
