// Four elements of storage a lane: as words, since vectors of 16 bits would come in pieces; `words` is vec2<u32> where
// HALF is 1, for elements of 16 bits.
alias words = vec4<u32>;
const HALF: u32 = 0u;

fn quad_of(w: words) -> vec4f {
    if HALF == 1u { return vec4f(unpack2x16float(w.x), unpack2x16float(w.y)); }
    return bitcast<vec4f>(vec4u(w.x, w.y, w[2u - 2u * HALF], w[3u - 2u * HALF]));
}

fn words_of(v: vec4f) -> words {
    var w: words;
    if HALF == 1u {
        w.x = pack2x16float(v.xy);
        w.y = pack2x16float(v.zw);
    } else {
        let bits = bitcast<vec4u>(v);
        w[2u - 2u * HALF] = bits.z;
        w[3u - 2u * HALF] = bits.w;
        w.x = bits.x;
        w.y = bits.y;
    }
    return w;
}
