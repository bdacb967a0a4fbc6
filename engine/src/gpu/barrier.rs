//! Barriers of a subgroup that order workgroup memory, too. WGSL's extension means just that; naga 30 gives them the memory of
//! "subgroups" alone, which holds nothing, so its module is told before it becomes a shader.

#[cfg(not(target_arch = "wasm32"))]
use naga::{Barrier, Block, Module, Statement};

/// How kernels write one.
const CALL: &str = "subgroupBarrier()";

/// A kernel's text whose subgroups wait for the whole workgroup: the same, where nothing else is to be had.
pub(super) fn of_workgroups(text: &str) -> String {
    text.replace(CALL, "workgroupBarrier()")
}

/// What becomes a shader: the module of a text that has such barriers, else the text.
pub(super) fn source(text: String) -> wgpu::ShaderSource<'static> {
    #[cfg(not(target_arch = "wasm32"))]
    if let Some(module) = module(&text) {
        return wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module));
    }
    wgpu::ShaderSource::Wgsl(text.into())
}

/// The module of a text with such barriers, which order workgroup memory there; None where it has none, or is no WGSL: the text
/// then tells why.
#[cfg(not(target_arch = "wasm32"))]
fn module(text: &str) -> Option<Module> {
    if !text.contains(CALL) {
        return None;
    }
    let mut module = naga::front::wgsl::parse_str(text).ok()?;
    for (_, function) in module.functions.iter_mut() {
        order(&mut function.body);
    }
    for entry in &mut module.entry_points {
        order(&mut entry.function.body);
    }
    Some(module)
}

#[cfg(not(target_arch = "wasm32"))]
fn order(block: &mut Block) {
    for statement in block.iter_mut() {
        match statement {
            Statement::ControlBarrier(barrier) if barrier.contains(Barrier::SUB_GROUP) => {
                *barrier |= Barrier::WORK_GROUP;
            }
            Statement::Block(inner) => order(inner),
            Statement::If { accept, reject, .. } => {
                order(accept);
                order(reject);
            }
            Statement::Switch { cases, .. } => cases.iter_mut().for_each(|case| order(&mut case.body)),
            Statement::Loop { body, continuing, .. } => {
                order(body);
                order(continuing);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        var<workgroup> x: array<u32, 64>;
        @group(0) @binding(0) var<storage, read_write> y: array<u32>;
        fn turn(i: u32) { x[i] = i; subgroupBarrier(); }
        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) i: u32) {
            for (var k = 0u; k < 3u; k++) {
                if y[64] > k { subgroupBarrier(); } else { workgroupBarrier(); }
                switch y[65] { case 1u: { subgroupBarrier(); } default: { turn(i); } }
            }
            y[i] = x[i ^ 1u];
        }";

    /// Whatever blocks they stand in, and no other barrier changes.
    #[test]
    fn barriers_of_subgroups_order_workgroup_memory() {
        let module = module(TEXT).expect("it is WGSL");
        let all = naga::valid::Validator::new(Default::default(), naga::valid::Capabilities::all())
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .expect("it stays valid");
        let zero_initialize_workgroup_memory = naga::back::spv::ZeroInitializeWorkgroupMemoryMode::None;
        let options = naga::back::spv::Options { zero_initialize_workgroup_memory, ..Default::default() };
        let words = naga::back::spv::write_vec(&module, &all, &options, None).expect("SPIR-V");
        let (mut constants, mut barriers, mut at) = (std::collections::HashMap::new(), Vec::new(), 5);
        while at < words.len() {
            let (operation, length) = (words[at] & 0xffff, (words[at] >> 16) as usize);
            match operation {
                // OpConstant and OpControlBarrier: execution, memory, semantics.
                43 => drop(constants.insert(words[at + 2], words[at + 3])),
                224 => barriers.push([1, 2, 3].map(|i| words[at + i])),
                _ => {}
            }
            at += length;
        }
        let mut barriers: Vec<_> = barriers.iter().map(|b| b.map(|id| constants[&id])).collect();
        barriers.sort_unstable();
        // Scopes: 2 a workgroup, 3 a subgroup. Semantics: 8 acquire and release, 0x80 a subgroup's memory, 0x100 a workgroup's.
        assert_eq!(barriers, [[2, 2, 0x108], [3, 3, 0x188], [3, 3, 0x188], [3, 3, 0x188]]);
    }

    #[test]
    fn texts_without_them_or_of_no_sense_stay_texts() {
        assert!(module(&of_workgroups(TEXT)).is_none());
        assert!(module("subgroupBarrier() and no WGSL").is_none());
    }
}
