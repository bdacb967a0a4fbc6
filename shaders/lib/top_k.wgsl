// uses: lib/entry.wgsl
// Operands of finding the k largest columns of rows.
struct Params { rows: u32, columns: u32, k: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;                  // (rows, columns)
@group(0) @binding(2) var<storage, read_write> values: array<elem>;       // (rows, k)
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;       // (rows, k)
