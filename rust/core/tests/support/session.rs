//! A program that opens a store, appends, waits, reads, closes, dies and starts again.
//!
//! It goes on where a real one would: what a failed call means is checked here against the errors that are allowed.

use super::history::{self, Attempt, Fate, Form, History, Sort, Trouble, Unseen};
use super::notes;
use ego_core::StoreError;
use ego_core::io::sim::{Call, Fault, Selector, SimDoor, Times};
use ego_core::journal::{Command, Content, Journal, Outcome, Record, Ticket, Unit};
use ego_core::log::{Log, LogOptions};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where the store is.
pub(crate) const STORE: &str = "/data/store";
/// How long a ticket may stay unsettled.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a mark may take to be written.
const IDLE: Duration = Duration::from_millis(250);

/// The store could not be opened, which ends a script.
#[derive(Debug)]
pub(crate) struct Down;

/// How a script goes on.
pub(crate) type Step = Result<(), Down>;

#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

pub(crate) struct Session {
    pub(crate) door: SimDoor,
    pub(crate) options: LogOptions,
    pub(crate) history: History,
    log: Option<Arc<Log>>,
    bell: Arc<Bell>,
    next: BTreeMap<usize, u64>,
    pending: Vec<(Ticket, usize)>,
    pending_notes: Vec<(Ticket, usize)>,
    /// Nothing is armed: whatever fails is wrong.
    strict: bool,
    armed: bool,
    refusals: bool,
    broken: Vec<u64>,
    trouble: Option<Trouble>,
}

impl Session {
    pub(crate) fn new(door: SimDoor, options: LogOptions, history: History, strict: bool) -> Self {
        let (bell, next, pending) = (Arc::default(), BTreeMap::new(), Vec::new());
        Self {
            door,
            options,
            history,
            log: None,
            bell,
            next,
            pending,
            pending_notes: Vec::new(),
            strict,
            armed: !strict,
            refusals: false,
            broken: Vec::new(),
            trouble: None,
        }
    }

    /// The same story told on another machine that holds the same, with or without something armed.
    pub(crate) fn fork(&self, armed: bool) -> Self {
        let mut fork = Self::new(self.door.after_kill(), self.options, self.history.clone(), !armed);
        fork.trouble = self.trouble.clone();
        fork
    }

    /// The first promise that was broken.
    pub(crate) fn verdict(&self) -> Result<(), Trouble> {
        self.trouble.clone().map_or(Ok(()), Err)
    }

    fn blame(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }

    /// Whatever fails from here on may: the script itself breaks something.
    pub(crate) fn expect_failures(&mut self) {
        self.strict = false;
    }

    /// Units may be refused from here on, by a conflict or a full disk.
    pub(crate) fn expect_refusals(&mut self) {
        self.refusals = true;
    }

    /// The script mends what it broke; what a sweep has armed stays so.
    pub(crate) fn mended(&mut self) {
        self.strict = !self.armed;
        self.door.set_capacity(None);
        for fault in self.broken.drain(..) {
            self.door.disarm(fault);
        }
    }

    /// The script itself breaks the first call from here on that the selector chooses.
    pub(crate) fn break_call(&mut self, selector: Selector, fault: Fault, times: Times) {
        self.strict = false;
        self.broken.push(self.door.fail(selector, 1, fault, times));
    }

    /// Blocks on a disk that is full once so many more are taken.
    pub(crate) fn blocks_free_after(&self, more: u64) -> u64 {
        self.door.blocks() + more
    }

    /// Opens the store and compares it at once.
    pub(crate) fn open(&mut self) -> Step {
        match Log::open(Arc::new(self.door.clone()), Path::new(STORE), self.options) {
            Ok(log) => {
                let bell = self.bell.clone();
                log.on_settled(Arc::new(move || {
                    *bell.rung.lock() += 1;
                    bell.changed.notify_all();
                }));
                self.log = Some(Arc::new(log));
                self.history.restart();
                self.next.clear();
                self.pending.clear();
                self.pending_notes.clear();
                self.look_after(true);
                Ok(())
            }
            Err(error) => {
                if self.strict || !matches!(error, StoreError::Io { .. } | StoreError::Full { .. }) {
                    self.blame(Trouble::wrong(format!("opening failed: {error}")));
                }
                Err(Down)
            }
        }
    }

    /// A second opening is refused while the store is open.
    pub(crate) fn open_twice(&mut self) {
        match Log::open(Arc::new(self.door.clone()), Path::new(STORE), self.options) {
            Err(StoreError::Locked { pid: Some(_), .. }) => {}
            Err(StoreError::Io { .. }) if !self.strict => {}
            Err(error) => self.blame(Trouble::wrong(format!("a second opening failed with {error}"))),
            Ok(_) => self.blame(Trouble::wrong("the store was opened twice")),
        }
    }

    /// Reads everything and compares it.
    pub(crate) fn look(&mut self) {
        self.look_after(false);
    }

    fn look_after(&mut self, restarted: bool) {
        let Some(log) = self.log.clone() else { return };
        let notes = self.history.notes.compare(&*log);
        match notes.and_then(|notes| Ok((self.history.compare(&*log)?, notes))) {
            Ok((seen, notes)) => {
                self.history.learn(&seen, restarted);
                self.history.notes.learn(&notes, restarted);
            }
            Err(Unseen::Broken(trouble)) => self.blame(trouble),
            Err(Unseen::Failed(StoreError::Io { .. })) if !self.strict => {}
            Err(Unseen::Failed(error)) => self.blame(Trouble::wrong(format!("reading failed: {error}"))),
        }
    }

    /// What the store shows now, for comparing two openings.
    pub(crate) fn content(&mut self) -> (Vec<history::Seen>, notes::Shown) {
        let Some(log) = self.log.clone() else { return Default::default() };
        let notes = self.history.notes.compare(&*log);
        match notes.and_then(|notes| Ok((self.history.compare(&*log)?, notes))) {
            Ok(content) => content,
            Err(Unseen::Broken(trouble)) => {
                self.blame(trouble);
                Default::default()
            }
            Err(Unseen::Failed(error)) => {
                self.blame(Trouble::wrong(format!("reading failed: {error}")));
                Default::default()
            }
        }
    }

    /// Writes a value of so many bytes for note `n`, or removes it with none, and neither kicks nor waits.
    pub(crate) fn note(&mut self, n: usize, size: usize) {
        let Some(log) = self.log.clone() else { return };
        let (number, name, value) = self.history.notes.attempt(n, size);
        match log.write_note(&name, &value) {
            Ok(ticket) => self.pending_notes.push((ticket, number)),
            Err(error) => {
                self.history.notes.set(number, Fate::Gone);
                self.allow(&error, "appending");
            }
        }
    }

    /// Appends a unit whose events have these sizes, without waiting.
    pub(crate) fn append(&mut self, entity: usize, sizes: &[usize]) {
        self.append_form(entity, Form::events(sizes));
    }

    /// Appends a unit without waiting.
    pub(crate) fn append_form(&mut self, entity: usize, form: Form) {
        let Some(log) = self.log.clone() else { return };
        let first = match self.next.get(&entity) {
            Some(next) => *next,
            None => match log.revision(&history::key(entity)) {
                Ok(last) => last + 1,
                Err(error) => return self.allow(&error, "asking for a revision"),
            },
        };
        self.append_at(entity, first, form);
    }

    /// Appends a unit that claims to start at revision `first`.
    pub(crate) fn append_at(&mut self, entity: usize, first: u64, form: Form) {
        let Some(log) = self.log.clone() else { return };
        let next = first + form.sizes.len() as u64;
        let attempt = self.history.attempt(entity, first, form);
        match submit(&log, attempt, &self.history.attempts[attempt]) {
            Ok(ticket) => {
                self.next.insert(entity, next);
                self.pending.push((ticket, attempt));
            }
            Err(error) => {
                self.history.set(attempt, Fate::Gone);
                self.next.remove(&entity);
                if !matches!(error, StoreError::TooLarge { .. }) {
                    self.allow(&error, "appending");
                }
            }
        }
    }

    /// Several threads append units of one event to entities of their own, all at once.
    pub(crate) fn append_from_threads(&mut self, threads: usize, units: usize) {
        let Some(log) = self.log.clone() else { return };
        let shared = Mutex::new((&mut self.history, &mut self.pending));
        let refused = Mutex::new(None);
        std::thread::scope(|scope| {
            for entity in 0..threads {
                let (log, shared, refused) = (&log, &shared, &refused);
                scope.spawn(move || {
                    let Ok(last) = log.revision(&history::key(entity)) else { return };
                    for unit in 0..units {
                        let (history, pending) = &mut *shared.lock();
                        let attempt = history.attempt(entity, last + 1 + unit as u64, Form::events(&[40]));
                        match submit(log, attempt, &history.attempts[attempt]) {
                            Ok(ticket) => pending.push((ticket, attempt)),
                            Err(error) => {
                                history.set(attempt, Fate::Gone);
                                *refused.lock() = Some(error);
                                return;
                            }
                        }
                        log.kick();
                    }
                });
            }
        });
        self.next.clear();
        if let Some(error) = refused.into_inner() {
            self.allow(&error, "appending");
        }
    }

    pub(crate) fn kick(&self) {
        if let Some(log) = &self.log {
            log.kick();
        }
    }

    /// Waits until every accepted unit has an outcome, and writes it down.
    pub(crate) fn settle(&mut self) {
        let Some(log) = self.log.clone() else { return };
        log.kick();
        self.await_settled(&log);
    }

    /// The same, where nobody kicks: an idle committer takes what is there.
    pub(crate) fn settle_when_idle(&mut self) {
        let Some(log) = self.log.clone() else { return };
        self.await_settled(&log);
    }

    fn await_settled(&mut self, log: &Log) {
        let last = self.pending.iter().chain(&self.pending_notes).map(|(ticket, _)| *ticket).max().unwrap_or(0);
        let mut rung = self.bell.rung.lock();
        while log.settled() < last {
            if self.bell.changed.wait_for(&mut rung, PATIENCE).timed_out() {
                drop(rung);
                return self.blame(Trouble::new(Sort::Hung, format!("ticket {last} was never settled")));
            }
        }
        drop(rung);
        self.take_outcomes(log);
    }

    fn take_outcomes(&mut self, log: &Log) {
        let settled = log.settled();
        for (ticket, number) in std::mem::take(&mut self.pending_notes) {
            if ticket > settled {
                self.pending_notes.push((ticket, number));
                continue;
            }
            match log.outcome(ticket) {
                Outcome::Stored => self.history.notes.set(number, Fate::Stored),
                Outcome::Refused(error) => {
                    self.history.notes.set(number, Fate::Gone);
                    if !matches!(error, StoreError::Full { .. }) || (self.strict && !self.refusals) {
                        self.allow(&error, "settling");
                    }
                }
                Outcome::Unknown(error) => {
                    self.history.notes.set(number, Fate::Unknown);
                    self.allow(&error, "committing");
                }
            }
        }
        for (ticket, attempt) in std::mem::take(&mut self.pending) {
            if ticket > settled {
                self.pending.push((ticket, attempt));
                continue;
            }
            let entity = self.history.attempts[attempt].entity;
            match log.outcome(ticket) {
                Outcome::Stored => self.history.set(attempt, Fate::Stored),
                Outcome::Refused(error) => {
                    self.history.set(attempt, Fate::Gone);
                    self.next.remove(&entity);
                    let fits = matches!(error, StoreError::Full { .. } | StoreError::Conflict { .. });
                    if !fits || (self.strict && !self.refusals) {
                        self.allow(&error, "settling");
                    }
                }
                Outcome::Unknown(error) => {
                    self.history.set(attempt, Fate::Unknown);
                    self.next.remove(&entity);
                    self.allow(&error, "committing");
                }
            }
        }
    }

    fn allow(&mut self, error: &StoreError, doing: &str) {
        let fits = match error {
            StoreError::Poisoned { .. } | StoreError::OutcomeUnknown { .. } => doing != "asking for a revision",
            StoreError::Io { .. } => doing != "appending" && doing != "settling",
            StoreError::Full { .. } => doing == "closing",
            _ => false,
        };
        if self.strict || !fits {
            self.blame(Trouble::wrong(format!("{doing} failed: {error}")));
        }
    }

    /// Appends one unit and waits for it.
    pub(crate) fn write(&mut self, entity: usize, sizes: &[usize]) {
        self.write_form(entity, Form::events(sizes));
    }

    /// Appends one unit and waits for it.
    pub(crate) fn write_form(&mut self, entity: usize, form: Form) {
        self.append_form(entity, form);
        self.settle();
    }

    /// The fate of the latest unit.
    pub(crate) fn last_fate(&self) -> Option<Fate> {
        self.history.attempts.last().map(|Attempt { fate, .. }| *fate)
    }

    /// Where nothing is armed, the latest unit must have come to this.
    pub(crate) fn expect_last(&mut self, fate: Fate) {
        if self.strict && self.last_fate() != Some(fate) {
            self.blame(Trouble::wrong(format!("a unit came to {:?} instead of {fate:?}", self.last_fate())));
        }
    }

    /// The script itself needs this to do what it says.
    pub(crate) fn require(&mut self, holds: bool) {
        if !holds {
            self.blame(Trouble::wrong("the script does not do what it says"));
        }
    }

    /// Waits until the committer, left idle, has begun to sync a mark.
    pub(crate) fn await_mark(&mut self) {
        let Some(log) = self.log.clone().filter(|log| !self.door.crashed() && log.poisoned().is_none()) else { return };
        let gate = self.door.hold(Selector::call(Call::Datasync).by("ego-committer"));
        // It may have been quicker than the gate: where each unit was waited for, a batch more than units is a mark.
        let marked = || log.stats().batches > log.stats().units;
        let limit = if self.strict { 40 * IDLE } else { IDLE };
        let reached = marked() || gate.reached(1, limit) || marked();
        if self.strict && !reached {
            self.blame(Trouble::wrong("an idle committer wrote no mark"));
        }
    }

    /// Closes in order.
    pub(crate) fn close(&mut self) {
        let Some(log) = self.log.take() else { return };
        let closed = log.close();
        self.take_outcomes(&log);
        match closed {
            Ok(()) if self.pending.is_empty() && self.pending_notes.is_empty() => {}
            Ok(()) => self.blame(Trouble::wrong("closing left a ticket unsettled")),
            Err(error) => self.allow(&error, "closing"),
        }
        self.pending.clear();
        self.pending_notes.clear();
    }

    /// The process dies; the machine goes on.
    pub(crate) fn kill(&mut self) {
        let before = self.door.clone();
        self.door = before.after_kill();
        before.crash();
        self.log = None;
        self.pending.clear();
        self.pending_notes.clear();
    }

    /// Lets go of the store without closing it.
    pub(crate) fn abandon(&mut self) {
        self.log = None;
        self.pending.clear();
        self.pending_notes.clear();
    }

    /// Removes every file that is derived from the segments.
    pub(crate) fn remove_derived(&mut self) {
        use ego_core::io::Door;
        let store = Path::new(STORE);
        for path in self.door.list(store).unwrap_or_default() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name != "LOCK" && name != "MANIFEST" && !name.ends_with(".seg") {
                let _outcome = self.door.unlink(&path);
            }
        }
        let _outcome = self.door.sync_dir(store);
    }
}

fn record(version: u32, (name, payload): &(String, Vec<u8>)) -> Record<'_> {
    Record { name, version, payload }
}

fn submit(log: &Log, number: usize, attempt: &Attempt) -> Result<Ticket, StoreError> {
    let Attempt { entity, first, form, .. } = attempt;
    let made = |record, size| (history::name(number, record), history::payload(number, record, size));
    let made_records: Vec<_> = form.sizes.iter().enumerate().map(|(record, size)| made(record, *size)).collect();
    let made_rejection = form.rejection.map(|size| made(history::REJECTION, size));
    let version = history::version(number);
    let records: Vec<Record<'_>> = made_records.iter().map(|made| record(version, made)).collect();
    let rejection = made_rejection.as_ref().map(|made| record(version, made));
    let id = format!("{number}.command");
    let command = Command { id: &id, fingerprint: history::fingerprint(number), rejection };
    log.append(&Unit {
        entity: &history::key(*entity),
        first_revision: *first,
        content: if form.is_state { Content::State(records[0]) } else { Content::Events(&records) },
        command: form.has_command.then_some(command),
        metadata: &history::payload(number, history::METADATA, form.metadata),
    })
}
