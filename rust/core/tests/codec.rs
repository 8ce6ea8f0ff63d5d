//! The bytes of the log: what goes in comes out, and nothing else is taken for it.

#![cfg(test)]

use ego_core::journal::{Command, Content, EntityKey, Record, Unit};
use ego_core::log::format::{
    Address, BatchHeader, Committed, FLAG_CLEAN, FLAG_MARK, Origin, RECORD_EVENT, RECORD_STATE, SegmentHeader,
    UnitView, complete_unit, encode_unit, measure, units_of,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// Cases of each property; `EGO_CASES` asks for another number.
fn config() -> ProptestConfig {
    let cases = std::env::var("EGO_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Debug, Clone)]
struct Sample {
    kind: String,
    id: String,
    first_revision: u64,
    shard: u16,
    committed: (u64, u64, u32, u32, u64),
    is_state: bool,
    values: Vec<Value>,
    command: Option<(String, [u8; 16], Option<Value>)>,
    metadata: Vec<u8>,
}

/// Name, version and payload of an event, a state or a rejection.
type Value = (String, u32, Vec<u8>);

fn sample() -> impl Strategy<Value = Sample> {
    let value = || ("[a-z.]{0,40}", any::<u32>(), vec(any::<u8>(), 0..200));
    let entity = ("\\PC{1,40}", "\\PC{1,60}", 1..u64::MAX / 2, any::<u16>());
    let committed = any::<(u64, u64, u32, u32, u64)>();
    let command = proptest::option::of(("\\PC{1,60}", any::<[u8; 16]>(), proptest::option::of(value())));
    let metadata = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 0..300)];
    (entity, committed, any::<bool>(), vec(value(), 0..6), command, metadata, value()).prop_map(
        |((kind, id, first_revision, shard), committed, is_state, mut values, command, metadata, one)| {
            if is_state {
                values = vec![one];
            } else if values.is_empty() && command.is_none() {
                values.push(one);
            }
            Sample { kind, id, first_revision, shard, committed, is_state, values, command, metadata }
        },
    )
}

fn record((name, version, payload): &Value) -> Record<'_> {
    Record { name, version: *version, payload }
}

fn encode(sample: &Sample) -> Vec<u8> {
    let entity = EntityKey::new(Arc::from(sample.kind.as_str()), Arc::from(sample.id.as_str()));
    let records: Vec<_> = sample.values.iter().map(record).collect();
    let command = sample.command.as_ref().map(|(id, fingerprint, rejection)| Command {
        id,
        fingerprint: *fingerprint,
        rejection: rejection.as_ref().map(record),
    });
    let unit = Unit {
        entity: &entity,
        first_revision: sample.first_revision,
        content: if sample.is_state { Content::State(records[0]) } else { Content::Events(&records) },
        command,
        metadata: &sample.metadata,
    };
    let mut bytes = Vec::new();
    let (len, longest_name) = measure(&unit);
    encode_unit(&unit, len, sample.shard, &mut bytes);
    assert_eq!(bytes.len(), len);
    assert!(longest_name >= sample.kind.len().max(sample.id.len()));
    let (position, shard_position, segment, offset, time) = sample.committed;
    complete_unit(&mut bytes, &Committed { position, shard_position, previous: Address { segment, offset }, time });
    bytes
}

/// Everything that a reader sees of a unit; `None` where any part of it is refused.
fn decode(bytes: &[u8]) -> Option<Sample> {
    let unit = UnitView::decode(bytes).ok()?;
    let records = unit.records().collect::<Result<Vec<_>, _>>().ok()?;
    let command = unit.command().ok()?;
    let content = if unit.is_state() { RECORD_STATE } else { RECORD_EVENT };
    let values: Vec<_> = records
        .iter()
        .filter(|record| record.kind == content)
        .map(|record| (record.name.to_owned(), record.version, record.payload.to_vec()))
        .collect();
    let beside = records.len() - values.len();
    let revision = unit.first_revision() + values.len() as u64 - 1;
    let agrees = unit.positions() as usize == values.len() && unit.last_revision() == revision;
    if !agrees || unit.command_records() as usize != beside || command.is_some_and(|c| c.revision != revision) {
        return None;
    }
    let previous = unit.previous();
    Some(Sample {
        kind: unit.kind.to_owned(),
        id: unit.id.to_owned(),
        first_revision: unit.first_revision(),
        shard: unit.shard(),
        committed: (unit.position(), unit.shard_position(), previous.segment, previous.offset, unit.time()),
        is_state: unit.is_state(),
        values,
        command: command.map(|c| {
            let rejection = c.rejection.map(|r| (r.name.to_owned(), r.version, r.payload.to_vec()));
            (c.id.to_owned(), c.fingerprint, rejection)
        }),
        metadata: records.first().map_or_else(Vec::new, |first| first.metadata.to_vec()),
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_unit_comes_back_as_it_was(sample in sample()) {
        let bytes = encode(&sample);
        prop_assert_eq!(format!("{:?}", decode(&bytes)), format!("{:?}", Some(&sample)));
        let twice = [bytes.clone(), bytes.clone()].concat();
        let starts: Vec<_> = units_of(&twice).map(|unit| unit.unwrap().0).collect();
        prop_assert_eq!(starts, vec![0, bytes.len()]);
    }

    #[test]
    fn a_unit_with_a_flipped_bit_or_a_lost_end_is_refused(sample in sample(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let whole = encode(&sample);
        let at = at.index(whole.len());
        prop_assert!(decode(&whole[..at]).is_none());
        let mut flipped = whole;
        flipped[at] ^= 1 << bit;
        // The length stands before the checksum that covers it; a longer claim than there are bytes is refused as well.
        prop_assert!(decode(&flipped).is_none());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..400), salt in any::<u64>()) {
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
        prop_assert!(BatchHeader::decode(&bytes, salt).is_err());
        prop_assert!(decode(&bytes).is_none());
        prop_assert!(units_of(&bytes).all(|unit| unit.is_err()));
    }

    #[test]
    fn a_segment_header_comes_back_and_a_flipped_bit_is_refused(
        store in any::<[u8; 16]>(), numbers in any::<[u64; 6]>(), ids in any::<[u32; 3]>(), shards in any::<u16>(), bit in 0..1024usize,
    ) {
        for origin in [Origin::First, Origin::Roll, Origin::Recovery] {
            let header = SegmentHeader {
                store, shards, origin, id: ids[0], generation: ids[1], predecessor: ids[2], salt: numbers[0],
                predecessor_end: numbers[1], predecessor_hash: numbers[2], first_batch: numbers[3],
                first_position: numbers[4], created: numbers[5],
            };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_batch_header_comes_back_in_its_own_segment_alone(
        numbers in any::<[u64; 6]>(), counts in any::<[u32; 3]>(), segment in any::<u32>(), salt in any::<u64>(), other in any::<u64>(), bit in 0..640usize,
    ) {
        for flags in [0, FLAG_MARK, FLAG_MARK | FLAG_CLEAN] {
            let header = BatchHeader {
                number: numbers[0], body_len: counts[0], flags, units: counts[1], positions: counts[2], first_position: numbers[1],
                durable_to: numbers[2], previous: numbers[3], time: numbers[4], body_hash: numbers[5], segment,
            };
            let mut bytes = header.encode(salt);
            prop_assert_eq!(BatchHeader::decode(&bytes, salt), Ok(header));
            prop_assert_eq!(header.is_clean_close(), flags == FLAG_MARK | FLAG_CLEAN);
            prop_assert!(salt == other || BatchHeader::decode(&bytes, other).is_err());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(BatchHeader::decode(&bytes, salt).is_err());
        }
    }
}
