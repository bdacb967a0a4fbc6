// Dispatches of more than 65535 workgroups are folded into two dimensions of this width (engine/src/gpu/launch.rs).
const GRID_WIDTH: u32 = 32768u;

// The linear index of a workgroup. May exceed the number of rows: check it.
fn row_of(group: vec3u) -> u32 { return group.y * GRID_WIDTH + group.x; }
