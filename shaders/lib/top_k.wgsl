// What finding the k largest columns of rows begins with: operands, and columns in their order.
struct Params { rows: u32, columns: u32, k: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;                  // (rows, columns)
@group(0) @binding(2) var<storage, read_write> values: array<elem>;       // (rows, k)
@group(0) @binding(3) var<storage, read_write> indices: array<u32>;       // (rows, k)

// A column and its value as an integer of the same order. What is NONE comes after all columns.
struct Entry { key: u32, at: u32 }
const NONE: Entry = Entry(0u, 0xffffffffu);

fn comes_before(a: Entry, b: Entry) -> bool { return a.key > b.key || (a.key == b.key && a.at < b.at); }

fn entry(v: elem, c: u32) -> Entry {
    let bits = bitcast<u32>(f32(v));
    let key = select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
    return Entry(select(key, 0x80000000u, bits == 0x80000000u), c);       // −0 = 0
}
