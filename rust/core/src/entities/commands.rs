//! The commands that one entity remembers by their ids, so that a repeated one is answered and not run again.
//!
//! Bounded by number and by age. The journal holds the same records; what is here is the newer end of it, and what was
//! replied is kept only until the journal has it.

use crate::error::Result;
use crate::journal::{EntityKey, Journal, Read, Ticket, Wait};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

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
    pub rejection: Option<Rejection>,
    /// What was replied, while the journal may not have it.
    pub reply: Option<R>,
    /// The unit that recorded it; 0 where it was read from the journal.
    pub ticket: Ticket,
}

/// The remembered commands of one entity.
#[derive(Debug)]
pub struct Commands<R> {
    by_id: HashMap<Arc<str>, Remembered<R>>,
    /// The oldest first.
    order: VecDeque<Arc<str>>,
    /// How many at the end of `order` may still keep their reply.
    replies: usize,
}

impl<R> Default for Commands<R> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new(), replies: 0 }
    }
}

impl<R> Commands<R> {
    /// The command of that id, if it is remembered at `now`.
    #[must_use]
    pub fn find(&self, id: &str, now: u64, retention: Retention) -> Option<&Remembered<R>> {
        self.by_id.get(id).filter(|found| found.time >= oldest(now, retention))
    }

    /// Takes in how a command ended, and forgets what the retention does not cover any more.
    pub fn remember(&mut self, id: &str, command: Remembered<R>, retention: Retention) {
        let now = command.time;
        let id: Arc<str> = Arc::from(id);
        self.replies += usize::from(command.reply.is_some());
        if self.by_id.insert(Arc::clone(&id), command).is_some() {
            self.order.retain(|held| *held != id);
        }
        self.order.push_back(id);
        while self.order.len() > retention.count || self.front_is_older_than(oldest(now, retention)) {
            let Some(front) = self.order.pop_front() else { break };
            self.by_id.remove(&front);
        }
        self.replies = self.replies.min(self.order.len());
    }

    /// What a journal remembers of an entity's commands at `now`.
    ///
    /// # Errors
    /// As [`Journal::read_commands`].
    pub fn read(journal: &dyn Journal, entity: &EntityKey, now: u64, retention: Retention, wait: Wait) -> Result<Self> {
        let mut commands = Self::default();
        journal.read_commands(entity, oldest(now, retention), wait, &mut |stored| {
            let rejection = stored.rejection.map(|rejection| Rejection {
                name: rejection.name.to_owned(),
                version: rejection.version,
                payload: rejection.payload.to_vec(),
            });
            let (fingerprint, revision, time) = (stored.fingerprint, stored.revision, stored.time);
            let command = Remembered { fingerprint, revision, time, rejection, reply: None, ticket: 0 };
            if commands.recall(stored.id, command, retention) { Read::More } else { Read::Enough }
        })?;
        Ok(commands)
    }

    /// Takes in an older command than all that are here, read from the journal; false once there is no room for more.
    pub fn recall(&mut self, id: &str, command: Remembered<R>, retention: Retention) -> bool {
        if self.order.len() < retention.count && !self.by_id.contains_key(id) {
            let id: Arc<str> = Arc::from(id);
            self.by_id.insert(Arc::clone(&id), command);
            self.order.push_front(id);
        }
        self.order.len() < retention.count
    }

    /// Gives the replies up that the journal has by now.
    pub fn settle(&mut self, settled: Ticket, mut let_go: impl FnMut(R)) {
        while let Some(id) = self.replies.checked_sub(1).and_then(|_| self.order.get(self.order.len() - self.replies)) {
            let Some(command) = self.by_id.get_mut(id) else { break };
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
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The replies that are kept.
    pub fn replies(&self) -> impl Iterator<Item = &R> {
        self.order.iter().rev().take(self.replies).filter_map(|id| self.by_id.get(id)?.reply.as_ref())
    }

    fn front_is_older_than(&self, time: u64) -> bool {
        self.order.front().and_then(|id| self.by_id.get(id)).is_some_and(|command| command.time < time)
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
        Remembered { fingerprint: [0; 16], revision: time, time, rejection: None, reply: Some(time), ticket }
    }

    #[test]
    fn the_last_few_commands_are_found_and_older_ones_are_not() {
        let mut commands = Commands::default();
        for n in 1..=5 {
            commands.remember(&format!("c-{n}"), at(n, n), THREE);
        }
        assert_eq!(commands.len(), 3);
        assert!(commands.find("c-2", 5, THREE).is_none());
        assert_eq!(commands.find("c-3", 5, THREE).unwrap().revision, 3);
    }

    #[test]
    fn a_command_is_forgotten_when_it_is_old() {
        let mut commands = Commands::default();
        commands.remember("c", at(1_000, 1), THREE);
        assert!(commands.find("c", 1_100, THREE).is_some());
        assert!(commands.find("c", 1_101, THREE).is_none());
        commands.remember("d", at(1_200, 2), THREE);
        assert_eq!(commands.len(), 1);
    }

    #[test]
    fn an_id_that_comes_again_after_its_time_counts_once() {
        let mut commands = Commands::default();
        commands.remember("c", at(1, 1), THREE);
        commands.remember("d", at(2, 2), THREE);
        commands.remember("c", at(50, 3), THREE);
        assert_eq!((commands.len(), commands.find("c", 50, THREE).unwrap().revision), (2, 50));
        commands.remember("e", at(51, 4), THREE);
        commands.remember("f", at(52, 5), THREE);
        assert!(commands.find("d", 52, THREE).is_none());
        assert!(commands.find("c", 52, THREE).is_some());
    }

    #[test]
    fn replies_are_let_go_of_once_the_journal_has_them() {
        let mut commands = Commands::default();
        for n in 1..=3 {
            commands.remember(&format!("c-{n}"), at(n, n * 10), THREE);
        }
        let mut gone = Vec::new();
        commands.settle(20, |reply| gone.push(reply));
        assert_eq!((gone.as_slice(), commands.replies().copied().collect::<Vec<_>>()), (&[1, 2][..], vec![3]));
        commands.settle(u64::MAX, |reply| gone.push(reply));
        assert_eq!((gone, commands.replies().count()), (vec![1, 2, 3], 0));
        assert!(commands.find("c-1", 3, THREE).unwrap().reply.is_none());
    }

    #[test]
    fn what_the_journal_recalls_stands_before_what_is_here() {
        let mut commands = Commands::default();
        commands.remember("new", at(9, 9), THREE);
        assert!(commands.recall("old", at(8, 0), THREE));
        assert!(!commands.recall("older", at(7, 0), THREE));
        assert!(!commands.recall("oldest", at(6, 0), THREE));
        assert!(commands.find("oldest", 9, THREE).is_none());
        commands.remember("newer", at(10, 10), THREE);
        assert!(commands.find("older", 10, THREE).is_none());
        assert!(commands.find("old", 10, THREE).is_some());
    }

    #[test]
    fn commands_of_other_types_or_contents_have_other_fingerprints() {
        assert_eq!(fingerprint("Add", b"\x01"), fingerprint("Add", b"\x01"));
        assert_ne!(fingerprint("Add", b"\x01"), fingerprint("Add", b"\x02"));
        assert_ne!(fingerprint("Add", b"d\x01"), fingerprint("Addd", b"\x01"));
    }
}
