//! The commands that one entity remembers by their ids, so that a repeated one is answered and not run again.
//!
//! Bounded by number and by age. The journal holds the same records; what is here is the newer end of it, and what was
//! replied is kept only until the journal has it.

use crate::error::Result;
use crate::journal::{EntityKey, Journal, Read, Ticket, Wait};
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// How long and how many of them an entity remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The last so many commands.
    pub count: usize,
    /// Those of the last so many nanoseconds.
    pub age: u64,
}

/// A refusal as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The rejection type's stored name.
    pub name: String,
    /// The rejection type's stored version.
    pub version: u32,
    /// The encoded fields.
    pub payload: Vec<u8>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Remembered<R> {
    /// Tells commands under one id apart.
    pub fingerprint: [u8; 16],
    /// The entity's revision after it.
    pub revision: u64,
    /// When, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// The refusal, where it was refused.
    pub rejection: Option<Box<Rejection>>,
    /// What was replied, while the journal may not have it.
    pub reply: Option<R>,
    /// The unit that recorded it; 0 where it was read from the journal.
    pub ticket: Ticket,
    /// Whether that unit holds the record alone.
    pub is_alone: bool,
}

/// A remembered command with its id.
#[derive(Debug)]
struct Entry<R> {
    id: Arc<str>,
    hash: u64,
    command: Remembered<R>,
}

/// The remembered commands of one entity.
#[derive(Debug)]
pub struct Commands<R> {
    /// The oldest first.
    entries: VecDeque<Entry<R>>,
    /// The numbers of the entries by the hash of their id. Looking up an id that is new mostly touches nothing else.
    by_id: HashTable<u32>,
    /// The number of the first entry.
    first: u32,
    /// How many at the end may still keep their reply.
    replies: usize,
}

impl<R> Default for Commands<R> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), by_id: HashTable::new(), first: 0, replies: 0 }
    }
}

impl<R> Commands<R> {
    fn index(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    fn position(&self, hash: u64, id: &str) -> Option<usize> {
        let same = |number: &u32| {
            let index = self.index(*number);
            self.entries.get(index).is_some_and(|entry| entry.hash == hash && *entry.id == *id)
        };
        self.by_id.find(hash, same).map(|number| self.index(*number))
    }

    /// The command of that id, if it is remembered at `now`.
    #[must_use]
    pub fn find(&self, id: &str, now: u64, retention: Retention) -> Option<&Remembered<R>> {
        let found = &self.entries.get(self.position(xxh3_64(id.as_bytes()), id)?)?.command;
        (found.time >= oldest(now, retention)).then_some(found)
    }

    /// Takes in how a command ended, and forgets what the retention does not cover any more. An id that is here already
    /// is the newer command's from now on.
    pub fn remember(&mut self, id: Arc<str>, command: Remembered<R>, retention: Retention) {
        let (now, hash) = (command.time, xxh3_64(id.as_bytes()));
        self.replies += usize::from(command.reply.is_some() || self.replies > 0);
        if let Some(older) = self.position(hash, &id) {
            self.unlink(older);
        }
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry { id, hash, command });
        self.link(hash, number);
        let oldest = oldest(now, retention);
        while self.entries.len() > retention.count
            || self.entries.front().is_some_and(|entry| entry.command.time < oldest)
        {
            self.unlink(0);
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        self.replies = self.replies.min(self.entries.len());
    }

    /// What a journal remembers of an entity's commands at `now`.
    ///
    /// # Errors
    /// As [`Journal::read_commands`].
    pub fn read(journal: &dyn Journal, entity: &EntityKey, now: u64, retention: Retention, wait: Wait) -> Result<Self> {
        let mut commands = Self::default();
        journal.read_commands(entity, oldest(now, retention), wait, &mut |stored| {
            let rejection = stored.rejection.map(|rejection| {
                Box::new(Rejection {
                    name: rejection.name.to_owned(),
                    version: rejection.version,
                    payload: rejection.payload.to_vec(),
                })
            });
            let (fingerprint, revision, time) = (stored.fingerprint, stored.revision, stored.time);
            let command =
                Remembered { fingerprint, revision, time, rejection, reply: None, ticket: 0, is_alone: false };
            if commands.recall(stored.id, command, retention) { Read::More } else { Read::Enough }
        })?;
        Ok(commands)
    }

    /// Takes in an older command than all that are here, read from the journal; false once there is no room for more.
    pub fn recall(&mut self, id: &str, command: Remembered<R>, retention: Retention) -> bool {
        let hash = xxh3_64(id.as_bytes());
        if self.entries.len() < retention.count && self.position(hash, id).is_none() {
            self.first = self.first.wrapping_sub(1);
            self.entries.push_front(Entry { id: Arc::from(id), hash, command });
            self.link(hash, self.first);
        }
        self.entries.len() < retention.count
    }

    /// Takes the command of a unit back that is not stored, if the unit held nothing else. Gives its reply.
    pub fn take_back(&mut self, ticket: Ticket) -> Option<Option<R>> {
        let is_it = |entry: &Entry<R>| entry.command.is_alone && entry.command.ticket == ticket;
        let index = self.entries.iter().rposition(is_it)?;
        // Its place stays until it is the oldest, so that the numbers of the others do.
        self.unlink(index);
        self.entries.get_mut(index).map(|entry| entry.command.reply.take())
    }

    /// Gives the replies up that the journal has by now.
    pub fn settle(&mut self, settled: Ticket, mut let_go: impl FnMut(R)) {
        while self.replies > 0 {
            let index = self.entries.len() - self.replies;
            let Some(Entry { command, .. }) = self.entries.get_mut(index) else { break };
            if command.ticket > settled {
                break;
            }
            command.reply.take().map(&mut let_go);
            self.replies -= 1;
        }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The replies that are kept.
    pub fn replies(&self) -> impl Iterator<Item = &R> {
        self.entries.iter().rev().take(self.replies).filter_map(|entry| entry.command.reply.as_ref())
    }

    fn link(&mut self, hash: u64, number: u32) {
        let (entries, first) = (&self.entries, self.first);
        let rehash = |number: &u32| entries.get(number.wrapping_sub(first) as usize).map_or(0, |entry| entry.hash);
        self.by_id.insert_unique(hash, number, rehash);
    }

    fn unlink(&mut self, index: usize) {
        let Some(hash) = self.entries.get(index).map(|entry| entry.hash) else { return };
        let number = self.first.wrapping_add(index as u32);
        if let Ok(found) = self.by_id.find_entry(hash, |held| *held == number) {
            found.remove();
        }
    }
}

/// Commands before this time are not remembered at `now`.
#[must_use]
pub fn oldest(now: u64, retention: Retention) -> u64 {
    now.saturating_sub(retention.age)
}

/// What tells commands apart: a hash of the type's name and of the encoded command (XXH3, 128 bits).
#[must_use]
pub fn fingerprint(type_name: &str, encoded: &[u8]) -> [u8; 16] {
    let mut hash = Xxh3::new();
    hash.update(&(type_name.len() as u64).to_le_bytes());
    hash.update(type_name.as_bytes());
    hash.update(encoded);
    hash.digest128().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Retention = Retention { count: 3, age: 100 };

    fn at(time: u64, ticket: Ticket) -> Remembered<u64> {
        let reply = Some(time);
        Remembered { fingerprint: [0; 16], revision: time, time, rejection: None, reply, ticket, is_alone: false }
    }

    #[test]
    fn the_last_few_commands_are_found_and_older_ones_are_not() {
        let mut commands = Commands::default();
        for n in 1..=5 {
            commands.remember(Arc::from(format!("c-{n}")), at(n, n), THREE);
        }
        assert_eq!(commands.len(), 3);
        assert!(commands.find("c-2", 5, THREE).is_none());
        assert_eq!(commands.find("c-3", 5, THREE).unwrap().revision, 3);
    }

    #[test]
    fn a_command_is_forgotten_when_it_is_old() {
        let mut commands = Commands::default();
        commands.remember(Arc::from("c"), at(1_000, 1), THREE);
        assert!(commands.find("c", 1_100, THREE).is_some());
        assert!(commands.find("c", 1_101, THREE).is_none());
        commands.remember(Arc::from("d"), at(1_200, 2), THREE);
        assert_eq!(commands.len(), 1);
    }

    #[test]
    fn an_id_that_comes_again_after_its_time_is_the_newer_commands() {
        let mut commands = Commands::default();
        commands.remember(Arc::from("c"), at(1, 1), THREE);
        commands.remember(Arc::from("d"), at(2, 2), THREE);
        commands.remember(Arc::from("c"), at(102, 3), THREE);
        assert_eq!((commands.len(), commands.find("c", 102, THREE).unwrap().revision), (2, 102));
        commands.remember(Arc::from("e"), at(103, 4), THREE);
        assert_eq!((commands.len(), commands.find("c", 103, THREE).unwrap().revision), (2, 102));
    }

    #[test]
    fn replies_are_let_go_of_once_the_journal_has_them() {
        let mut commands = Commands::default();
        for n in 1..=3 {
            commands.remember(Arc::from(format!("c-{n}")), at(n, n * 10), THREE);
        }
        let mut gone = Vec::new();
        commands.settle(20, |reply| gone.push(reply));
        assert_eq!((gone.as_slice(), commands.replies().copied().collect::<Vec<_>>()), (&[1, 2][..], vec![3]));
        commands.settle(u64::MAX, |reply| gone.push(reply));
        assert_eq!((gone, commands.replies().count()), (vec![1, 2, 3], 0));
        assert!(commands.find("c-1", 3, THREE).unwrap().reply.is_none());
    }

    #[test]
    fn a_reply_before_a_refusal_is_let_go_of() {
        let mut commands = Commands::default();
        commands.remember(Arc::from("a"), at(1, 10), THREE);
        commands.remember(Arc::from("b"), Remembered { reply: None, ..at(2, 20) }, THREE);
        assert_eq!(commands.replies().count(), 1);
        let mut gone = Vec::new();
        commands.settle(20, |reply| gone.push(reply));
        assert_eq!((gone, commands.replies().count()), (vec![1], 0));
    }

    #[test]
    fn a_record_alone_is_taken_back_and_no_other() {
        let mut commands = Commands::default();
        commands.remember(Arc::from("a"), at(1, 10), THREE);
        commands.remember(Arc::from("b"), Remembered { is_alone: true, ..at(2, 20) }, THREE);
        commands.remember(Arc::from("c"), at(3, 30), THREE);
        assert!(commands.take_back(10).is_none());
        assert_eq!(commands.take_back(20), Some(Some(2)));
        assert!(commands.find("b", 3, THREE).is_none());
        assert_eq!((commands.len(), commands.replies().copied().collect::<Vec<_>>()), (2, vec![3, 1]));
    }

    #[test]
    fn what_the_journal_recalls_stands_before_what_is_here() {
        let mut commands = Commands::default();
        commands.remember(Arc::from("new"), at(9, 9), THREE);
        assert!(commands.recall("old", at(8, 0), THREE));
        assert!(!commands.recall("older", at(7, 0), THREE));
        assert!(!commands.recall("oldest", at(6, 0), THREE));
        assert!(commands.find("oldest", 9, THREE).is_none());
        commands.remember(Arc::from("newer"), at(10, 10), THREE);
        assert!(commands.find("older", 10, THREE).is_none());
        assert!(commands.find("old", 10, THREE).is_some());
    }

    #[test]
    fn thousands_of_commands_are_remembered_as_a_plain_list_would() {
        let retention = Retention { count: 40, age: 100 };
        let (mut commands, mut plain): (Commands<u64>, Vec<(String, u64)>) = (Commands::default(), Vec::new());
        for n in 1..5_000u64 {
            let (id, time) = (format!("c-{}", n * n * n % 97), n * (1 + n / 2_000));
            plain.retain(|(_, at)| at + retention.age >= time);
            let known = plain.iter().find(|(held, _)| *held == id).map(|(_, time)| *time);
            assert_eq!(commands.find(&id, time, retention).map(|found| found.time), known);
            if known.is_none() {
                commands.remember(Arc::from(&*id), at(time, n), retention);
                plain.push((id, time));
                plain.drain(..plain.len().saturating_sub(retention.count));
            }
            commands.settle(n.saturating_sub(3), drop);
            assert!(commands.replies().count() <= 4);
        }
    }

    #[test]
    fn commands_of_other_types_or_contents_have_other_fingerprints() {
        assert_eq!(fingerprint("Add", b"\x01"), fingerprint("Add", b"\x01"));
        assert_ne!(fingerprint("Add", b"\x01"), fingerprint("Add", b"\x02"));
        assert_ne!(fingerprint("Add", b"d\x01"), fingerprint("Addd", b"\x01"));
    }
}
