//! Builds the bytes of one batch: units completed in place, then the header over them.

use super::format::{
    Address, BATCH_HEADER, BatchHeader, Committed, FLAG_CLEAN, FLAG_MARK, batch_hash, body_hash, complete_unit, put,
};

/// The place in the log that a batch takes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The segment's id.
    pub segment: u32,
    /// The segment's salt.
    pub salt: u64,
    /// Where the batch starts.
    pub offset: u64,
    /// The batch's number.
    pub number: u64,
    /// Hash of the batch before.
    pub previous: u64,
    /// Position of the next event or state.
    pub position: u64,
    /// When the batch is committed.
    pub time: u64,
}

/// A batch being built. The buffer is kept from batch to batch.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    units: u32,
    positions: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH_HEADER], units: 0, positions: 0 }
    }
}

impl BatchBuilder {
    /// Forgets what was built.
    pub fn clear(&mut self) {
        self.bytes.truncate(BATCH_HEADER);
        (self.units, self.positions) = (0, 0);
    }

    /// Units pushed.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.units
    }

    /// Events and states pushed.
    #[must_use]
    pub fn positions(&self) -> u32 {
        self.positions
    }

    /// What was finished.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the next unit pushed will stand.
    #[must_use]
    pub fn next_address(&self, place: &Place) -> Address {
        let offset = place.offset + self.bytes.len() as u64;
        Address { segment: place.segment, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }

    /// Adds an encoded unit that takes so many positions, and completes it.
    pub fn push(&mut self, unit: &[u8], positions: u32, committed: &Committed) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(unit);
        if let Some(unit) = self.bytes.get_mut(start..) {
            complete_unit(unit, committed);
        }
        self.units += 1;
        self.positions += positions;
    }

    /// Writes the header; a batch without units is a mark. Returns the bytes to write and the batch's hash.
    pub fn finish(&mut self, place: &Place, clean: bool) -> (&[u8], u64) {
        let body = self.bytes.get(BATCH_HEADER..).unwrap_or_default();
        let mark = if self.units == 0 { FLAG_MARK } else { 0 };
        let header = BatchHeader {
            number: place.number,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            flags: mark | if clean { FLAG_CLEAN } else { 0 },
            units: self.units,
            positions: self.positions,
            first_position: place.position,
            durable_to: place.offset,
            previous: place.previous,
            time: place.time,
            body_hash: body_hash(body, place.salt),
            segment: place.segment,
        };
        let encoded = header.encode(place.salt);
        put(&mut self.bytes, 0, &encoded);
        (&self.bytes, batch_hash(&encoded, place.salt))
    }
}
