//! A checkpoint's tensors on the device, found by their official names.

use std::collections::HashMap;

use rambutan_engine::{
    DType, Gpu, Tensor,
    gpu::{Purpose, with_purpose},
    ops::{self, Around},
    tensor::{ParameterSpec, Parameters},
};

use crate::{Checkpoint, Error, config::ParameterKind};

/// A model's tensors.
pub struct Weights {
    /// All of them, in f32; but for the matrices where those are kept in f16 alone.
    pub parameters: Parameters,
    halves: HashMap<String, Tensor>,
    compute: DType,
    fixed: bool,
}

impl Weights {
    /// Uploads a checkpoint's parameters for layers that compute in `compute`; gradients are allocated where they are to
    /// be trained. Where they are not, matrices are rounded to f16 once if that is what products take them in.
    ///
    /// # Errors
    /// A parameter that the configuration names is absent, or memory does not suffice.
    pub fn upload(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        trained: bool,
        compute: DType,
    ) -> Result<Weights, Error> {
        let (mut specs, mut halves) = (Vec::new(), HashMap::new());
        for p in checkpoint.config.parameters() {
            let tensor =
                checkpoint.tensors.get(&p.name).ok_or_else(|| Error::MissingParameter(p.name.clone()))?;
            if compute == DType::F16 && !trained && p.kind == ParameterKind::Matrix {
                let whole = Tensor::from_slice(gpu, &tensor.data, tensor.shape.clone())?;
                let half = with_purpose(Purpose::Parameters, || ops::copy(&whole, DType::F16));
                halves.insert(p.name, half);
                continue;
            }
            specs.push(ParameterSpec {
                name: p.name,
                shape: tensor.shape.clone(),
                decay: p.decay,
                values: tensor.data.clone(),
            });
        }
        Ok(Weights { parameters: Parameters::new(gpu, specs, trained)?, halves, compute, fixed: !trained })
    }

    /// All of them.
    pub fn scope(&self) -> Scope<'_> {
        Scope { weights: Some(self), compute: self.compute, ..Scope::new(&self.parameters, "") }
    }
}

/// Parameters under a prefix: `backbone.layers.3.`.
#[derive(Clone)]
pub struct Scope<'a> {
    parameters: &'a Parameters,
    prefix: String,
    compute: DType,
    /// What they are part of, where it is known.
    weights: Option<&'a Weights>,
}

impl<'a> Scope<'a> {
    /// All parameters whose name starts with `prefix`, for layers that compute in f32.
    pub fn new(parameters: &'a Parameters, prefix: impl Into<String>) -> Scope<'a> {
        Scope { parameters, prefix: prefix.into(), compute: DType::F32, weights: None }
    }

    /// Whether no parameter will change.
    pub fn is_fixed(&self) -> bool {
        self.weights.is_some_and(|w| w.fixed)
    }

    /// A scope within this one.
    pub fn within(&self, part: &str) -> Scope<'a> {
        Scope { prefix: format!("{}{part}", self.prefix), ..self.clone() }
    }

    /// The parameter `name`, where there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        let name = format!("{}{name}", self.prefix);
        self.weights.and_then(|w| w.halves.get(&name)).or_else(|| self.parameters.get(&name)).cloned()
    }

    /// The parameter `name`.
    ///
    /// # Panics
    /// Where it is absent: [`Weights::upload`] saw to it that what the configuration names is there.
    #[track_caller]
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("no parameter {}{name}", self.prefix))
    }

    /// The norm whose weight is `name`, where there is one.
    pub fn find_norm(&self, name: &str, eps: f64) -> Option<Norm> {
        self.find(name).map(|weight| Norm { weight, eps: eps as f32, dtype: self.compute })
    }

    /// The norm whose weight is `name`.
    ///
    /// # Panics
    /// As [`Scope::get`].
    #[track_caller]
    pub fn norm(&self, name: &str, eps: f64) -> Norm {
        Norm { weight: self.get(name), eps: eps as f32, dtype: self.compute }
    }
}

/// RMSNorm on the way from the residual stream, always f32, into what a layer computes in. All that follows has the type
/// of its input, up to the sum with the stream.
pub struct Norm {
    weight: Tensor,
    eps: f32,
    dtype: DType,
}

impl Norm {
    /// x (…, width) → the same shape, in the type that the layer computes in.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::rms_norm_to(x, &self.weight, self.eps, self.dtype)
    }

    /// x (batch, tokens, width) → norm(x) · weightᵀ, in the type that the layer computes in. A token alone goes by
    /// [`ops::linear_step`].
    pub fn project(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        self.project_to(x, weight, self.dtype)
    }

    /// [`Norm::project`] of a stream, and the stream's sum.
    pub(crate) fn project_stream(&self, mut stream: Stream, weight: &Tensor) -> (Tensor, Tensor) {
        match stream.added.take() {
            Some(added) => {
                let (x, h) = ops::add_rms_norm(&stream.x, &added, &self.weight, self.eps, self.dtype);
                let y = ops::linear(&h, weight, None);
                (x, y)
            }
            None => {
                let y = self.project(&stream.x, weight);
                (stream.x, y)
            }
        }
    }

    /// [`Norm::project`] with another type of the result.
    pub fn project_to(&self, x: &Tensor, weight: &Tensor, dtype: DType) -> Tensor {
        if is_step(x, weight) && !self.weight.needs_grad() {
            let around = Around { norm: Some((&self.weight, self.eps)), ..Around::default() };
            return ops::linear_step(x, weight, around, dtype);
        }
        ops::linear_to(&self.forward(x), weight, None, dtype)
    }
}

/// The residual stream between layers, (batch, tokens, width): what the last one computed waits for the norm that reads the
/// sum next, which makes it on the way.
#[derive(Clone)]
pub struct Stream {
    x: Tensor,
    added: Option<Tensor>,
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Stream {
        Stream { x, added: None }
    }
}

impl Stream {
    /// (batch, tokens, width).
    pub(crate) fn axes(&self) -> [usize; 3] {
        self.x.axes()
    }

    /// The sum.
    pub fn settled(&mut self) -> &Tensor {
        if let Some(added) = self.added.take() {
            self.x = ops::add(&self.x, &added);
        }
        &self.x
    }
}

/// stream + x · weightᵀ, all (batch, tokens, …), for the next norm to add.
pub(crate) fn add_linear_later(stream: Tensor, x: &Tensor, weight: &Tensor) -> Stream {
    if is_step(x, weight) && !stream.needs_grad() {
        return add_linear(&stream, x, weight).into();
    }
    Stream { added: Some(ops::linear(x, weight, None)), x: stream }
}

/// stream + x · weightᵀ, all (batch, tokens, …). A token alone goes by [`ops::linear_step`].
pub(crate) fn add_linear(stream: &Tensor, x: &Tensor, weight: &Tensor) -> Tensor {
    if is_step(x, weight) && !stream.needs_grad() {
        let around = Around { residual: Some(stream), ..Around::default() };
        return ops::linear_step(x, weight, around, DType::F32);
    }
    ops::add(stream, &ops::linear(x, weight, None))
}

/// Whether `x`, (batch, tokens, width), is a token of each sequence, alone and outside of the graph: a matter of the
/// text's cut, never of the batch, so that a sequence's results are the same in any company.
pub(crate) fn is_step(x: &Tensor, weight: &Tensor) -> bool {
    x.shape()[1] == 1 && !x.needs_grad() && !weight.needs_grad()
}
