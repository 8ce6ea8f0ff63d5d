//! A journal with troubles by script: what it answers, and what the journal under it holds then.

#![cfg(test)]

use ego_core::StoreError;
use ego_core::io::RealDoor;
use ego_core::journal::{Content, EntityKey, Journal, Outcome, Read, Record, Ticket, Unit, Wait};
use ego_core::memory::MemoryJournal;
use ego_core::scripted::{Fault, Operation, Rule, Script, ScriptedJournal};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

struct Story {
    inner: Arc<MemoryJournal>,
    script: Arc<Script>,
    journal: ScriptedJournal,
}

impl Story {
    fn new() -> Self {
        let (inner, script) = (Arc::new(MemoryJournal::new(Arc::new(RealDoor))), Arc::<Script>::default());
        let journal = Self::over(&inner, &script);
        Self { inner, script, journal }
    }

    fn over(inner: &Arc<MemoryJournal>, script: &Arc<Script>) -> ScriptedJournal {
        ScriptedJournal::new(Arc::<MemoryJournal>::clone(inner), Arc::clone(script), PathBuf::from("memory"))
    }

    fn restart(&mut self) {
        self.journal = Self::over(&self.inner, &self.script);
    }

    fn plan(&self, fault: Fault, id: Option<&str>) -> usize {
        let entity = id.map(|id| ("Account".to_owned(), id.to_owned()));
        self.script.add(Rule { operation: Operation::Append, fault, entity, times: Some(1) })
    }

    fn append(&self, id: &str, first_revision: u64) -> Result<Ticket, StoreError> {
        let records = [Record { name: "bank.credited", version: 1, payload: b"5" }];
        let content = Content::Events(&records);
        let entity = &key(id);
        self.journal.append(&Unit { entity, first_revision, content, command: None, metadata: &[] })
    }

    fn held(&self, id: &str) -> u64 {
        self.inner.revision(&key(id)).unwrap()
    }
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(Arc::from("Account"), Arc::from(id))
}

fn broken() -> Fault {
    Fault::Fail(Arc::new(io::Error::from_raw_os_error(5)))
}

#[test]
fn a_failed_write_stores_nothing_and_poisons_until_the_journal_is_opened_again() {
    let mut story = Story::new();
    let before = story.append("a", 1).unwrap();
    story.plan(broken(), None);
    let failed = story.append("a", 2).unwrap();
    assert_eq!(story.journal.settled(), Ticket::MAX);
    assert!(matches!(story.journal.outcome(before), Outcome::Stored));
    assert!(matches!(story.journal.outcome(failed), Outcome::Unknown(StoreError::OutcomeUnknown { .. })));
    assert!(matches!(story.append("b", 1), Err(StoreError::Poisoned { .. })));
    assert!(matches!(story.journal.close(), Err(StoreError::Poisoned { .. })));
    assert_eq!(story.held("a"), 1);
    story.restart();
    let ticket = story.append("a", 2).unwrap();
    assert!(matches!(story.journal.outcome(ticket), Outcome::Stored));
}

#[test]
fn a_unit_whose_answer_is_lost_is_stored() {
    let story = Story::new();
    story.plan(Fault::LoseAnswer, None);
    let lost = story.append("a", 1).unwrap();
    assert!(matches!(story.journal.outcome(lost), Outcome::Unknown(_)));
    assert!(story.journal.poisoned().is_some());
    assert_eq!(story.held("a"), 1);
}

#[test]
fn a_refused_unit_leaves_no_trace_and_takes_no_other_entity_along() {
    let story = Story::new();
    story.plan(Fault::Refuse, Some("a"));
    let other = story.append("b", 1).unwrap();
    let refused = story.append("a", 1).unwrap();
    assert_eq!(story.journal.settled(), refused);
    assert!(matches!(story.journal.outcome(other), Outcome::Stored));
    assert!(matches!(story.journal.outcome(refused), Outcome::Refused(StoreError::Full { .. })));
    let again = story.append("a", 1).unwrap();
    assert!(matches!(story.journal.outcome(again), Outcome::Stored));
}

#[test]
fn a_held_unit_holds_back_those_behind_it_until_it_is_released() {
    let story = Story::new();
    let (reached, woken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = |counter: &Arc<AtomicU32>| {
        let counter = Arc::clone(counter);
        Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
    };
    story.journal.on_settled(count(&woken));
    let rule = story.plan(Fault::Hold(count(&reached)), None);
    story.plan(Fault::Refuse, Some("b"));
    let (held, refused, along) = (story.append("a", 1), story.append("b", 1), story.append("b", 2));
    let behind = story.append("a", 2).unwrap();
    assert_eq!((reached.load(Ordering::Relaxed), woken.load(Ordering::Relaxed)), (1, 0));
    assert_eq!((story.journal.settled(), story.journal.stats().pending), (0, 4));
    story.script.release(rule);
    assert_eq!((story.journal.settled(), woken.load(Ordering::Relaxed)), (behind, 1));
    assert!(matches!(story.journal.outcome(held.unwrap()), Outcome::Stored));
    for ticket in [refused, along] {
        assert!(matches!(story.journal.outcome(ticket.unwrap()), Outcome::Refused(StoreError::Full { .. })));
    }
    assert_eq!((story.held("a"), story.held("b")), (2, 0));
}

#[test]
fn what_waits_behind_a_failed_write_is_not_written() {
    let story = Story::new();
    let rule = story.plan(Fault::Hold(Arc::new(|| {})), Some("a"));
    story.plan(broken(), Some("b"));
    let (held, failed, behind) = (story.append("a", 1), story.append("b", 1), story.append("b", 2));
    story.script.release(rule);
    assert!(matches!(story.journal.outcome(held.unwrap()), Outcome::Stored));
    for ticket in [failed, behind] {
        assert!(matches!(story.journal.outcome(ticket.unwrap()), Outcome::Unknown(_)));
    }
    assert_eq!(story.held("b"), 0);
}

#[test]
fn a_read_fails_for_one_entity_as_often_as_it_was_asked_for() {
    let story = Story::new();
    story.append("a", 1).unwrap();
    let entity = Some(("Account".to_owned(), "a".to_owned()));
    let rule = Rule { operation: Operation::Read, fault: broken(), entity, times: Some(1) };
    let number = story.script.add(rule);
    let read = |id| story.journal.read_entity(&key(id), 1, Wait::AsLongAsItTakes, &mut |_| Read::More);
    assert_eq!(read("b").unwrap(), 0);
    assert_eq!(story.script.unused(), [number]);
    assert!(matches!(read("a"), Err(StoreError::Io { .. })));
    assert!(story.script.unused().is_empty());
    assert_eq!(read("a").unwrap(), 1);
}
