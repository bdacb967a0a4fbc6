// Sixteen bytes of storage a lane, as words, since vectors of 16 bits would come in pieces: eight elements of 16 bits
// where HALF is 1, else four of 32, and zeros.
const HALF: u32 = 0u;
const UNIT: u32 = 4u + 4u * HALF;                                     // elements
struct Eight { x: vec4f, y: vec4f }

fn eight_of(w: vec4u) -> Eight {
    if HALF == 1u {
        return Eight(vec4f(unpack2x16float(w.x), unpack2x16float(w.y)), vec4f(unpack2x16float(w.z), unpack2x16float(w.w)));
    }
    return Eight(bitcast<vec4f>(w), vec4f());
}

fn words_of(e: Eight) -> vec4u {
    if HALF == 1u {
        return vec4u(pack2x16float(e.x.xy), pack2x16float(e.x.zw), pack2x16float(e.y.xy), pack2x16float(e.y.zw));
    }
    return bitcast<vec4u>(e.x);
}
