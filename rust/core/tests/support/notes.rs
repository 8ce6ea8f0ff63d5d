//! The reference for notes: which values were tried, what is known of each, and whether a store agrees.

use super::history::{Fate, Sort, Trouble, Unseen, payload};
use ego_core::journal::{Journal, Read};
use std::collections::BTreeMap;

/// A value that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    name: String,
    value: Vec<u8>,
    pub(crate) fate: Fate,
}

/// Everything tried, in the order of the calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) tried: Vec<Tried>,
}

/// What a store shows: of each name, which of the values tried.
pub(crate) type Shown = BTreeMap<String, usize>;

impl Notes {
    /// A value of `size` bytes for note `n`, different from all others; none of size 0, which removes the note.
    pub(crate) fn attempt(&mut self, n: usize, size: usize) -> (usize, String, Vec<u8>) {
        let number = self.tried.len();
        let value =
            if size == 0 { Vec::new() } else { [&number.to_le_bytes()[..], &payload(number, 0, size)].concat() };
        let name = format!("note/{n}");
        self.tried.push(Tried { name: name.clone(), value: value.clone(), fate: Fate::Open });
        (number, name, value)
    }

    pub(crate) fn set(&mut self, number: usize, fate: Fate) {
        if let Some(tried) = self.tried.get_mut(number) {
            tried.fate = fate;
        }
    }

    /// Lists every note and compares it with what is known: whole values, none older than one that must be there.
    pub(crate) fn compare(&self, journal: &dyn Journal) -> Result<Shown, Unseen> {
        let (mut shown, mut broken) = (Shown::new(), None);
        let visit = &mut |name: &str, value: &[u8]| {
            let number = value.first_chunk().map(|bytes| usize::from_le_bytes(*bytes));
            let known = number.filter(|n| self.tried.get(*n).is_some_and(|t| t.name == name && t.value == value));
            match known {
                Some(number) if shown.insert(name.to_owned(), number).is_none() => Read::More,
                _ => {
                    broken = Some(Trouble::wrong(format!("note {name} is not what was written, or there twice")));
                    Read::Enough
                }
            }
        };
        journal.read_notes("", visit).map_err(Unseen::Failed)?;
        let trouble = broken.map_or_else(|| self.judge(&shown).err(), Some);
        trouble.map_or(Ok(shown), |trouble| Err(Unseen::Broken(trouble)))
    }

    fn judge(&self, shown: &Shown) -> Result<(), Trouble> {
        for (number, tried) in self.tried.iter().enumerate() {
            let there = shown.get(&tried.name).copied();
            if tried.fate == Fate::Gone && there == Some(number) {
                return Err(Trouble::wrong(format!("value {number} of {} was refused, and is there", tried.name)));
            }
            // Absent is what a later removal leaves; a removal is as good as its value where nothing is there.
            let is_older = match there {
                Some(there) => there < number,
                None => !self.may_be_absent(number),
            };
            if tried.fate == Fate::Stored && is_older {
                let what = format!("{} shows {there:?}, older than value {number}", tried.name);
                return Err(Trouble::new(Sort::Lost, what));
            }
        }
        Ok(())
    }

    /// Whether a removal that may be there stands at this value or behind it.
    fn may_be_absent(&self, number: usize) -> bool {
        let name = self.tried.get(number).map(|tried| &tried.name);
        let behind = self.tried.iter().skip(number).filter(|tried| Some(&tried.name) == name);
        behind.into_iter().any(|tried| tried.value.is_empty() && tried.fate != Fate::Gone)
    }

    /// What was shown must not be followed by anything older. After a restart, what is newer is gone for ever.
    pub(crate) fn learn(&mut self, shown: &Shown, restarted: bool) {
        for (number, tried) in self.tried.iter_mut().enumerate() {
            match shown.get(&tried.name) {
                Some(there) if *there == number => tried.fate = Fate::Stored,
                Some(there) if restarted && *there < number => tried.fate = Fate::Gone,
                None if restarted && !tried.value.is_empty() && tried.fate != Fate::Stored => tried.fate = Fate::Gone,
                _ => {}
            }
        }
    }
}
