//! What a command carries besides itself: pairs of texts, encoded once as a MessagePack map.
//!
//! Encoding and reading are total: every list of pairs that fits has one encoding, and what is no such map reads as none.

/// The pairs, encoded; empty for none.
///
/// Later pairs of a name replace earlier ones in their place.
#[must_use]
pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for (name, value) in pairs {
        match kept.iter_mut().find(|(held, _)| *held == name) {
            Some(pair) => pair.1 = value,
            None => kept.push((name, value)),
        }
    }
    let mut out = begin(kept.len());
    kept.iter().for_each(|(name, value)| push(&mut out, name, value));
    out
}

/// The beginning of the encoding of `count` pairs, of which no two have one name; each is then [pushed](push).
#[must_use]
pub fn begin(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count * PAIR_BYTES);
    match count {
        0 => {}
        n @ 1..=15 => out.push(0x80 | n as u8),
        n => head(&mut out, 0xde, n),
    }
    out
}

/// Adds the next pair.
pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    text(out, name);
    text(out, value);
}

/// A guess at what a pair takes.
const PAIR_BYTES: usize = 64;

fn text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        n @ 0..=31 => out.push(0xa0 | n as u8),
        n @ 32..=255 => out.extend_from_slice(&[0xd9, n as u8]),
        n => head(out, 0xda, n),
    }
    out.extend_from_slice(text.as_bytes());
}

/// A length of 16 bits; what is longer is over every cap and never stored.
fn head(out: &mut Vec<u8>, tag: u8, n: usize) {
    out.push(tag);
    out.extend_from_slice(&u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes());
}

/// The pairs of an encoded map, in their order.
#[must_use]
pub fn pairs(encoded: &[u8]) -> Vec<(&str, &str)> {
    read(encoded).unwrap_or_default()
}

fn read(mut rest: &[u8]) -> Option<Vec<(&str, &str)>> {
    let count = match take(&mut rest, 1)? {
        [tag @ 0x80..=0x8f] => usize::from(tag & 0x0f),
        [0xde] => length(take(&mut rest, 2)?),
        _ => return None,
    };
    let mut found = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        found.push((read_text(&mut rest)?, read_text(&mut rest)?));
    }
    Some(found)
}

fn read_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = match take(rest, 1)? {
        [tag @ 0xa0..=0xbf] => usize::from(tag & 0x1f),
        [0xd9] => length(take(rest, 1)?),
        [0xda] => length(take(rest, 2)?),
        _ => return None,
    };
    std::str::from_utf8(take(rest, len)?).ok()
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_pairs_take_no_bytes() {
        assert_eq!((encode([]), pairs(&[])), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_later_pair_replaces_an_earlier_one() {
        let encoded = encode([("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(pairs(&encoded), [("a", "3"), ("b", "2")]);
    }

    #[test]
    fn the_encoding_is_a_messagepack_map() {
        assert_eq!(encode([("a", "bc")]), b"\x81\xa1a\xa2bc");
    }

    proptest! {
        #[test]
        fn pairs_come_back(given in proptest::collection::btree_map(".{0,300}", ".{0,300}", 0..40)) {
            let encoded = encode(given.iter().map(|(name, value)| (&**name, &**value)));
            let back: Vec<_> = given.iter().map(|(name, value)| (&**name, &**value)).collect();
            prop_assert_eq!(pairs(&encoded), back);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pairs(&bytes);
        }
    }
}
