// A column and its value as an integer of the same order. What is NONE comes after all columns.
struct Entry { key: u32, at: u32 }
const NONE: Entry = Entry(0u, 0xffffffffu);

fn comes_before(a: Entry, b: Entry) -> bool { return a.key > b.key || (a.key == b.key && a.at < b.at); }

fn entry(v: elem, c: u32) -> Entry {
    let bits = bitcast<u32>(f32(v));
    let key = select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
    return Entry(select(key, 0x80000000u, bits == 0x80000000u), c);       // −0 = 0
}
