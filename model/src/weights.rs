//! A checkpoint's tensors on the device, found by their official names.

use rambutan_engine::{
    Gpu, Tensor,
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
}

impl<'a> Scope<'a> {
    /// All parameters whose name starts with `prefix`.
    pub fn new(parameters: &'a Parameters, prefix: impl Into<String>) -> Scope<'a> {
        Scope { parameters, prefix: prefix.into() }
    }

    /// A scope within this one.
    pub fn within(&self, part: &str) -> Scope<'a> {
        Scope { parameters: self.parameters, prefix: format!("{}{part}", self.prefix) }
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
}
