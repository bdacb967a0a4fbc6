//! What can come from outside and go wrong. Misuse in code panics instead, naming operand and shapes.

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from the adapter, its driver, its memory or the caller's data.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the request.
    #[error(
        "no GPU adapter fits {wanted}; found: {found}. Install a Vulkan driver (software: mesa-vulkan-drivers) or relax the request"
    )]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters that exist.
        found: String,
    },
    /// The adapter refused to open a device.
    #[error("adapter `{adapter}` opened no device: {reason}")]
    NoDevice {
        /// The adapter's name.
        adapter: String,
        /// wgpu's reason.
        reason: String,
    },
    /// A buffer could not be allocated.
    #[error(
        "out of device memory: asked for {asked} bytes for {purpose}; in use: {in_use}. Use smaller batches, shorter texts or a smaller model"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// What for.
        purpose: String,
        /// Bytes in use by purpose.
        in_use: String,
    },
    /// A tensor exceeds what one buffer or binding can hold on this adapter.
    #[error("{what} needs {asked} bytes, but this adapter allows {limit} a buffer. Use smaller batches")]
    TooLarge {
        /// The tensor.
        what: String,
        /// Bytes needed.
        asked: u64,
        /// The adapter's limit.
        limit: u64,
    },
    /// A kernel did not compile, or its interface does not match its launch.
    #[error("kernel `{stem}`: {reason}")]
    Kernel {
        /// The kernel's stem.
        stem: String,
        /// The compiler's words.
        reason: String,
    },
    /// The device reported an error while it worked.
    #[error("the device failed: {0}")]
    Device(String),
    /// Data does not fit the shape it was given.
    #[error("{what}: expected {expected}, got {got}")]
    Data {
        /// What was given.
        what: String,
        /// What fits.
        expected: String,
        /// What came.
        got: String,
    },
}
