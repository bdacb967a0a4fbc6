// Where a statistic of a token's slot lies, of (batches, tokens, slots, query heads): `token` counts over batches, `row` over
// batches, tokens and query heads.
fn stat_of(token: u32, slot: u32, row: u32) -> u32 { return (token * (params.slots - 1u) + slot) * params.query_heads + row; }
