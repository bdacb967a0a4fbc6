//! A checkpoint's tensors on the device, found by their official names.

use rambutan_engine::{
    DType, Gpu, Tensor, ops,
    tensor::{ParameterSpec, Parameters},
};

use crate::{Checkpoint, Error};

/// Uploads a checkpoint's parameters; gradients are allocated where they are to be trained.
///
/// # Errors
/// A parameter that the configuration names is absent, or memory does not suffice.
pub fn upload(gpu: &Gpu, checkpoint: &Checkpoint, trained: bool) -> Result<Parameters, Error> {
    let specs = checkpoint
        .config
        .parameters()
        .into_iter()
        .map(|p| {
            let tensor =
                checkpoint.tensors.get(&p.name).ok_or_else(|| Error::MissingParameter(p.name.clone()))?;
            Ok(ParameterSpec {
                name: p.name,
                shape: tensor.shape.clone(),
                decay: p.decay,
                values: tensor.data.clone(),
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(Parameters::new(gpu, specs, trained)?)
}

/// Parameters under a prefix: `backbone.layers.3.`.
#[derive(Clone)]
pub struct Scope<'a> {
    parameters: &'a Parameters,
    prefix: String,
    compute: DType,
}

impl<'a> Scope<'a> {
    /// All parameters whose name starts with `prefix`, for layers that compute in f32.
    pub fn new(parameters: &'a Parameters, prefix: impl Into<String>) -> Scope<'a> {
        Scope { parameters, prefix: prefix.into(), compute: DType::F32 }
    }

    /// The same for layers that compute in `dtype`.
    pub fn computing_in(self, dtype: DType) -> Scope<'a> {
        Scope { compute: dtype, ..self }
    }

    /// A scope within this one.
    pub fn within(&self, part: &str) -> Scope<'a> {
        Scope { prefix: format!("{}{part}", self.prefix), ..self.clone() }
    }

    /// The parameter `name`, where there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.parameters.get(&format!("{}{name}", self.prefix)).cloned()
    }

    /// The parameter `name`.
    ///
    /// # Panics
    /// Where it is absent: [`upload`] saw to it that what the configuration names is there.
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
}
