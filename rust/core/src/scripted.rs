//! A journal over another one, with the troubles that a test asks for.
//!
//! What the script does not name goes through as it is. Tickets are this journal's own and are settled in order. A write
//! that fails poisons this journal and leaves the inner one as it is: who opens that again goes on from what it holds, and readers see it before.
//! What waits behind a failed write is not written either, and its outcome is as unknown. A refused unit takes the later
//! ones of its entity along that were accepted before this was known.

use crate::error::{Result, StoreError};
use crate::feed::{Filter, Follower, Waker};
use crate::journal::{EntityKey, Journal, JournalStats, Outcome, Read, StoredCommand, StoredEvent, Ticket, Unit, Wait};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Called from any thread, without a lock held.
pub type Signal = Arc<dyn Fn() + Send + Sync>;

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// The call fails. Nothing of a unit is written; its outcome is unknown, and the journal takes no more.
    Fail(Arc<io::Error>),
    /// There is no room: the unit is refused and nothing of it is written.
    Refuse,
    /// The unit is written and is not settled before the rule is released; the signal tells that one is held.
    Hold(Signal),
    /// The unit is written and its outcome is unknown all the same; the journal takes no more.
    LoseAnswer,
}

/// The calls that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Handing a unit over.
    Append,
    /// Reading one entity: its events, its state or its commands.
    Read,
}

/// Which call goes wrong, how, and how often.
pub struct Rule {
    /// The call.
    pub operation: Operation,
    /// What happens instead. A read can only fail.
    pub fault: Fault,
    /// Kind and id of the one entity that it concerns; none for every entity.
    pub entity: Option<(String, String)>,
    /// How many calls it concerns; none for all.
    pub times: Option<u64>,
}

impl Rule {
    fn concerns(&self, operation: Operation, entity: &EntityKey) -> bool {
        let named = |(kind, id): &(String, String)| *kind == *entity.kind && *id == *entity.id;
        self.operation == operation && self.times != Some(0) && self.entity.as_ref().is_none_or(named)
    }
}

struct Scripted {
    rule: Rule,
    was_used: bool,
    released: bool,
}

/// The rules of one test, which all journals opened with it share.
#[derive(Default)]
pub struct Script {
    rules: Mutex<Vec<Scripted>>,
    wakers: Mutex<Vec<Signal>>,
}

impl Script {
    /// Adds a rule and gives its number, from 0. Of several that concern a call, the first counts.
    pub fn add(&self, rule: Rule) -> usize {
        let mut rules = self.rules.lock();
        rules.push(Scripted { rule, was_used: false, released: false });
        rules.len() - 1
    }

    /// Ends a rule, and settles what it held.
    pub fn release(&self, number: usize) {
        if let Some(held) = self.rules.lock().get_mut(number) {
            held.released = true;
            held.rule.times = Some(0);
        }
        self.wake();
    }

    fn wake(&self) {
        let wakers = self.wakers.lock().clone();
        wakers.iter().for_each(|wake| wake());
    }

    /// The rules that were not used as often as they say, or never at all.
    pub fn unused(&self) -> Vec<usize> {
        let rules = self.rules.lock();
        let unused =
            |held: &Scripted| !held.was_used || (!held.released && held.rule.times.is_some_and(|left| left > 0));
        rules.iter().enumerate().filter(|(_, held)| unused(held)).map(|(number, _)| number).collect()
    }

    fn take(&self, operation: Operation, entity: &EntityKey) -> Option<(usize, Fault)> {
        let mut rules = self.rules.lock();
        let (number, held) = rules.iter_mut().enumerate().find(|(_, held)| held.rule.concerns(operation, entity))?;
        held.was_used = true;
        held.rule.times = held.rule.times.map(|left| left - 1);
        Some((number, held.rule.fault.clone()))
    }

    fn is_held(&self, number: usize) -> bool {
        self.rules.lock().get(number).is_some_and(|held| !held.released)
    }
}

/// What will become of an accepted unit.
#[derive(Clone)]
enum Fate {
    /// What becomes of it in the inner journal.
    Given(Ticket),
    Refused(StoreError),
    /// Its outcome is unknown once the inner journal has settled what it was given of it, if anything.
    Failed(Arc<str>, Ticket),
}

struct Open {
    entity: EntityKey,
    fate: Fate,
    held_by: Option<usize>,
}

#[derive(Default)]
struct Progress {
    settled: Ticket,
    /// What was accepted after that, in order.
    open: VecDeque<Open>,
    refused: HashMap<Ticket, StoreError>,
    poison: Option<Arc<str>>,
}

impl Progress {
    fn accepted(&self) -> Ticket {
        self.settled + self.open.len() as Ticket
    }

    /// What a unit of that entity shares with one before it that is not settled.
    fn shared(&self, entity: &EntityKey) -> Option<Fate> {
        let shared = |open: &&Open| match &open.fate {
            Fate::Given(_) => false,
            Fate::Refused(_) => open.entity.is(entity),
            Fate::Failed(..) => true,
        };
        match self.open.iter().find(shared)?.fate.clone() {
            Fate::Failed(cause, _) => Some(Fate::Failed(cause, 0)),
            fate => Some(fate),
        }
    }
}

/// The journal.
pub struct ScriptedJournal {
    inner: Arc<dyn Journal>,
    script: Arc<Script>,
    /// What errors name as the place of the store.
    path: PathBuf,
    progress: Mutex<Progress>,
}

impl ScriptedJournal {
    /// A journal over `inner`, which nobody else uses meanwhile.
    #[must_use]
    pub fn new(inner: Arc<dyn Journal>, script: Arc<Script>, path: PathBuf) -> Self {
        Self { inner, script, path, progress: Mutex::default() }
    }

    /// Settles what can be by now.
    fn advance(&self, progress: &mut Progress) {
        while progress.poison.is_none()
            && let Some(front) = progress.open.front()
            && front.held_by.is_none_or(|rule| !self.script.is_held(rule))
        {
            match &front.fate {
                Fate::Given(ticket) | Fate::Failed(_, ticket) if self.inner.settled() < *ticket => return,
                Fate::Given(ticket) => match self.inner.outcome(*ticket) {
                    Outcome::Stored => {}
                    Outcome::Refused(error) => drop(progress.refused.insert(progress.settled + 1, error)),
                    Outcome::Unknown(_) => break,
                },
                Fate::Refused(error) => {
                    let error = error.clone();
                    progress.refused.insert(progress.settled + 1, error);
                }
                Fate::Failed(cause, _) => {
                    progress.poison = Some(Arc::clone(cause));
                    return;
                }
            }
            progress.open.pop_front();
            progress.settled += 1;
        }
        if progress.poison.is_none() && self.inner.settled() == Ticket::MAX {
            progress.poison = Some(match self.inner.poisoned() {
                Some(StoreError::Poisoned { cause }) => cause,
                Some(other) => Arc::from(other.to_string()),
                None => Arc::from("the store is closed"),
            });
        }
    }

    fn advanced(&self) -> parking_lot::MutexGuard<'_, Progress> {
        let mut progress = self.progress.lock();
        self.advance(&mut progress);
        progress
    }

    fn check_read(&self, entity: &EntityKey) -> Result<()> {
        match self.script.take(Operation::Read, entity) {
            Some((_, Fault::Fail(source))) => Err(StoreError::Io { path: self.path.clone(), call: "read", source }),
            _ => Ok(()),
        }
    }
}

impl Journal for ScriptedJournal {
    fn append(&self, unit: &Unit<'_>) -> Result<Ticket> {
        let mut progress = self.advanced();
        if let Some(cause) = &progress.poison {
            return Err(StoreError::Poisoned { cause: Arc::clone(cause) });
        }
        let (mut held_by, mut reached) = (None, None);
        let fate = match progress.shared(unit.entity) {
            Some(shared) => shared,
            None => match self.script.take(Operation::Append, unit.entity) {
                None => Fate::Given(self.inner.append(unit)?),
                Some((_, Fault::Fail(source))) => Fate::Failed(Arc::from(source.to_string()), 0),
                Some((_, Fault::Refuse)) => Fate::Refused(StoreError::Full { path: self.path.clone() }),
                Some((_, Fault::LoseAnswer)) => {
                    Fate::Failed(Arc::from("its answer was lost"), self.inner.append(unit)?)
                }
                Some((rule, Fault::Hold(signal))) => {
                    (held_by, reached) = (Some(rule), Some(signal));
                    Fate::Given(self.inner.append(unit)?)
                }
            },
        };
        let is_lost = matches!(fate, Fate::Failed(..));
        progress.open.push_back(Open { entity: unit.entity.clone(), fate, held_by });
        let ticket = progress.accepted();
        drop(progress);
        if is_lost {
            // Those who follow the journal learn of it as well.
            self.script.wake();
        }
        if let Some(reached) = reached {
            reached();
        }
        Ok(ticket)
    }

    fn is_congested(&self) -> bool {
        self.inner.is_congested()
    }

    fn kick(&self) {
        self.inner.kick();
    }

    fn settled(&self) -> Ticket {
        let progress = self.advanced();
        if progress.poison.is_some() { Ticket::MAX } else { progress.settled }
    }

    fn outcome(&self, ticket: Ticket) -> Outcome {
        let progress = self.advanced();
        if let Some(error) = progress.refused.get(&ticket) {
            return Outcome::Refused(error.clone());
        }
        match &progress.poison {
            Some(cause) if ticket > progress.settled => {
                Outcome::Unknown(StoreError::OutcomeUnknown { cause: Arc::clone(cause) })
            }
            _ => Outcome::Stored,
        }
    }

    fn on_settled(&self, wake: Signal) {
        self.script.wakers.lock().push(Arc::clone(&wake));
        self.inner.on_settled(wake);
    }

    fn poisoned(&self) -> Option<StoreError> {
        let cause = self.advanced().poison.clone();
        cause.map(|cause| StoreError::Poisoned { cause }).or_else(|| self.inner.poisoned())
    }

    fn revision(&self, entity: &EntityKey) -> Result<u64> {
        self.inner.revision(entity)
    }

    fn kinds_of(&self, id: &str) -> Vec<Arc<str>> {
        self.inner.kinds_of(id)
    }

    fn read_entity(
        &self,
        entity: &EntityKey,
        from: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>) -> Read,
    ) -> Result<u64> {
        self.check_read(entity)?;
        self.inner.read_entity(entity, from, wait, visit)
    }

    fn read_state(
        &self,
        entity: &EntityKey,
        at: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<u64> {
        self.check_read(entity)?;
        self.inner.read_state(entity, at, wait, visit)
    }

    fn read_commands(
        &self,
        entity: &EntityKey,
        since: u64,
        wait: Wait,
        visit: &mut dyn FnMut(StoredCommand<'_>) -> Read,
    ) -> Result<()> {
        self.check_read(entity)?;
        self.inner.read_commands(entity, since, wait, visit)
    }

    fn read_from(&self, from: u64, visit: &mut dyn FnMut(&EntityKey, StoredEvent<'_>) -> Read) -> Result<()> {
        self.inner.read_from(from, visit)
    }

    fn follow(self: Arc<Self>, after: u64, filter: Filter, wake: Waker) -> Result<Box<dyn Follower>> {
        Arc::clone(&self.inner).follow(after, filter, wake)
    }

    fn store_id(&self) -> [u8; 16] {
        self.inner.store_id()
    }

    fn position_at(&self, time: u64) -> Result<u64> {
        self.inner.position_at(time)
    }

    fn read_notes(&self, prefix: &str, visit: &mut dyn FnMut(&str, &[u8]) -> Read) -> Result<()> {
        self.inner.read_notes(prefix, visit)
    }

    fn stats(&self) -> JournalStats {
        let progress = self.advanced();
        let (units, pending) = (progress.accepted(), progress.open.len() as u64);
        JournalStats { units, pending, ..self.inner.stats() }
    }

    fn abandon_after_fork(&self) {
        self.inner.abandon_after_fork();
    }

    /// Closes the inner journal, which commits all that it was given.
    fn close(&self) -> Result<()> {
        self.inner.close()?;
        self.poisoned().map_or(Ok(()), Err)
    }
}
