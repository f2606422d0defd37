//! Words and names as [`scan`](super::scan) compares and hashes them.

/// A function's name as one of 128 bits.
#[inline]
pub(crate) fn call_bit(name: &[u8]) -> u128 {
    1 << (fold(0, word_hash(name)) >> 57)
}

/// The statement that a FunctionCall is, by the function's OID: 0 for those on large objects, for
/// which libpq uses it.
pub(super) fn function_print(oid: u32) -> u64 {
    match oid {
        715 | 764 | 765 | 767 | 952..=958 | 964 | 1004 | 3170..=3172 => 0,
        other => mix(1, &other.to_be_bytes()),
    }
}

/// The name of a parameter in lower case, if it is one that can be asked for.
pub(super) fn setting(name: &[u8]) -> Option<Box<str>> {
    let is_simple = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    let simple = !name.is_empty() && name.iter().all(is_simple);
    let name = std::str::from_utf8(name).ok().filter(|_| simple)?;
    Some(name.to_ascii_lowercase().into())
}

/// The hash of a word, whatever its case.
pub(super) const fn word_hash(word: &[u8]) -> u64 {
    let (mut hash, mut at) = (0, 0);
    while at < word.len() {
        let (mut eight, mut next) = (0, 0);
        while next < 8 && at + next < word.len() {
            eight |= ((word[at + next] | 0x20) as u64) << (8 * next);
            next += 1;
        }
        hash = fold(hash, eight);
        at += 8;
    }
    hash
}

/// The same for a word that stands in a text, eight bytes at a time.
#[inline]
pub(super) fn word_hash_in(text: &[u8], start: usize, end: usize) -> u64 {
    let (mut hash, mut at) = (0, start);
    while at < end {
        let Some(eight) = text[at..].first_chunk() else {
            return if at == start {
                word_hash(&text[start..end])
            } else {
                fold(hash, lowered(&text[at..end]))
            };
        };
        let mut eight = u64::from_le_bytes(*eight) | 0x2020_2020_2020_2020;
        if end - at < 8 {
            eight &= (1 << (8 * (end - at))) - 1;
        }
        hash = fold(hash, eight);
        at += 8;
    }
    hash
}

/// Less than eight bytes as a number.
fn lowered(bytes: &[u8]) -> u64 {
    let mut eight = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        eight |= u64::from(byte | 0x20) << (8 * at);
    }
    eight
}

/// Takes a word into a print. That is never 0 then.
#[inline]
pub(super) const fn fold(print: u64, word: u64) -> u64 {
    // The fraction of the golden ratio, odd: its multiples are spread over all bits.
    ((print.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1
}

#[inline]
pub(super) fn mix(print: u64, word: &[u8]) -> u64 {
    fold(print, word_hash(word))
}

/// Words that are literals: how many there are says nothing.
#[inline]
pub(super) fn is_constant(word: &[u8]) -> bool {
    match word.len() {
        4 => is(word, b"null") || is(word, b"true"),
        5 => is(word, b"false"),
        7 => is(word, b"default"),
        _ => false,
    }
}

/// Words before a parenthesis that are no function, or one of PostgreSQL's that draws nothing. A
/// function of another schema with the same name is taken for PostgreSQL's.
pub(super) fn is_known_call(word: &[u8]) -> bool {
    let mut lower = [0; 20];
    let Some(lower) = lower.get_mut(..word.len()) else {
        return false;
    };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    matches!(
        &*lower,
        b"abs"
            | b"all"
            | b"and"
            | b"any"
            | b"array"
            | b"array_agg"
            | b"array_length"
            | b"as"
            | b"avg"
            | b"between"
            | b"bool_and"
            | b"bool_or"
            | b"by"
            | b"case"
            | b"cast"
            | b"ceil"
            | b"char"
            | b"coalesce"
            | b"concat"
            | b"count"
            | b"current_database"
            | b"current_schema"
            | b"current_setting"
            | b"date_part"
            | b"date_trunc"
            | b"decimal"
            | b"dense_rank"
            | b"distinct"
            | b"else"
            | b"escape"
            | b"every"
            | b"except"
            | b"exists"
            | b"exp"
            | b"extract"
            | b"fetch"
            | b"filter"
            | b"floor"
            | b"format"
            | b"from"
            | b"generate_series"
            | b"greatest"
            | b"having"
            | b"ilike"
            | b"in"
            | b"index"
            | b"intersect"
            | b"interval"
            | b"into"
            | b"json_agg"
            | b"json_build_object"
            | b"jsonb_agg"
            | b"jsonb_array_elements"
            | b"jsonb_build_object"
            | b"lag"
            | b"lateral"
            | b"lead"
            | b"least"
            | b"left"
            | b"length"
            | b"like"
            | b"limit"
            | b"lower"
            | b"max"
            | b"md5"
            | b"min"
            | b"not"
            | b"now"
            | b"nullif"
            | b"numeric"
            | b"offset"
            | b"on"
            | b"or"
            | b"over"
            | b"partition"
            | b"pg_backend_pid"
            | b"pg_sleep"
            | b"position"
            | b"power"
            | b"random"
            | b"rank"
            | b"replace"
            | b"right"
            | b"round"
            | b"row"
            | b"row_number"
            | b"select"
            | b"set_config"
            | b"similar"
            | b"sqrt"
            | b"string_agg"
            | b"substring"
            | b"sum"
            | b"then"
            | b"timestamp"
            | b"timestamptz"
            | b"to_char"
            | b"to_timestamp"
            | b"trim"
            | b"union"
            | b"unnest"
            | b"upper"
            | b"using"
            | b"values"
            | b"varchar"
            | b"version"
            | b"when"
            | b"where"
            | b"with"
    )
}

#[inline]
pub(super) fn is(word: &[u8], other: &[u8]) -> bool {
    word.eq_ignore_ascii_case(other)
}

#[inline]
pub(super) fn starts(word: &[u8], other: &[u8]) -> bool {
    word.get(..other.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(other))
}

pub(super) fn contains(word: &[u8], other: &[u8]) -> bool {
    word.windows(other.len())
        .any(|window| window.eq_ignore_ascii_case(other))
}
