//! Which call goes wrong, and how.
//!
//! A call is named by its [`Site`]: who makes it, on which sort of file, which call. Several threads of one program
//! interleave differently from run to run, so a count over all calls does not name the same call twice; the count
//! within one site does, as long as each thread repeats its own steps. Sweeps therefore count per site.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A call on the door or on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Call {
    Open,
    Read,
    Write,
    Datasync,
    Sync,
    Size,
    SetLen,
    Kind,
    CreateDir,
    List,
    Rename,
    Unlink,
    SyncDir,
    Lock,
}

/// Where a call comes from and what it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The name of a thread that the engine started (`ego-...`), `caller` for any other.
    pub thread: Arc<str>,
    /// The file's name with every run of digits as `#`: one class for all segments.
    pub file: Arc<str>,
    /// The call.
    pub call: Call,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:?}", self.thread, self.file, self.call)
    }
}

impl Site {
    pub(super) fn here(path: &Path, call: Call) -> Self {
        let thread = std::thread::current();
        let thread = thread.name().filter(|name| name.starts_with("ego-")).unwrap_or("caller");
        Self { thread: thread.into(), file: file_class(path).into(), call }
    }
}

/// The class of a file: its name with every run of digits as `#`.
#[must_use]
pub fn file_class(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut class = String::with_capacity(name.len());
    for c in name.chars() {
        if !c.is_ascii_digit() {
            class.push(c);
        } else if !class.ends_with('#') {
            class.push('#');
        }
    }
    class
}

/// Chooses calls: what is `None` chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// The thread class of [`Site::thread`].
    pub thread: Option<Arc<str>>,
    /// The file class of [`Site::file`].
    pub file: Option<Arc<str>>,
    /// The call.
    pub call: Option<Call>,
}

impl Selector {
    /// Every call.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Every call of one sort.
    #[must_use]
    pub fn call(call: Call) -> Self {
        Self { call: Some(call), ..Self::default() }
    }

    /// The calls of one site.
    #[must_use]
    pub fn site(site: &Site) -> Self {
        Self { thread: Some(site.thread.clone()), file: Some(site.file.clone()), call: Some(site.call) }
    }

    /// Only the calls of this thread: `Selector::call(Call::Write).by("ego-committer")`.
    #[must_use]
    pub fn by(self, thread: &str) -> Self {
        Self { thread: Some(thread.into()), ..self }
    }

    /// Only the calls on this class of file.
    #[must_use]
    pub fn on(self, file: &str) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    pub(super) fn chooses(&self, site: &Site) -> bool {
        self.thread.as_ref().is_none_or(|thread| *thread == site.thread)
            && self.file.as_ref().is_none_or(|file| *file == site.file)
            && self.call.is_none_or(|call| call == site.call)
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// EIO and nothing done. A sync that fails so leaves the cache as it is, marked clean: the disk lacks the data and
    /// no later sync brings it. Every other descriptor of the file is told by its next sync.
    Eio,
    /// ENOSPC and nothing done; a sync as with `Eio`.
    NoSpace,
    /// EINTR. `read_at` and `write_at` resume, as the door promises; any other call says so and has done nothing.
    Interrupted,
    /// EIO after a part: a write of the first half, a read of the first half, a sync that brought the first half of
    /// the writes to the disk and lost the rest, and a change of names that took place all the same.
    Short,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Eio, Self::NoSpace, Self::Interrupted, Self::Short];

    pub(super) fn error(self) -> io::Error {
        let errno = match self {
            Self::Eio | Self::Short => rustix::io::Errno::IO,
            Self::NoSpace => rustix::io::Errno::NOSPC,
            Self::Interrupted => rustix::io::Errno::INTR,
        };
        errno.into()
    }
}

/// How often an armed fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    /// At the chosen call alone.
    Once,
    /// At the chosen call and all later ones of the selector.
    ForEver,
}

/// One call that was made.
#[derive(Debug, Clone)]
pub struct Traced {
    /// What and by whom.
    pub site: Site,
    /// On which path.
    pub path: PathBuf,
    /// Offset and length, where the call has them.
    pub range: Option<(u64, u64)>,
    /// What was done to it.
    pub fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Fail(Fault, Times),
    Crash,
}

#[derive(Debug, Clone)]
struct Plan {
    key: u64,
    selector: Selector,
    nth: u64,
    action: Action,
    seen: u64,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Go,
    Fail(Fault),
    Crash,
}

/// The armed faults, the counts and the trace.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    plans: Vec<Plan>,
    next: u64,
    pub(super) counts: BTreeMap<Site, u64>,
    pub(super) trace: Option<Vec<Traced>>,
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, selector: Selector, nth: u64, action: Action) -> u64 {
        self.next += 1;
        self.plans.push(Plan { key: self.next, selector, nth, action, seen: 0 });
        self.next
    }

    pub(super) fn disarm(&mut self, key: u64) {
        self.plans.retain(|plan| plan.key != key);
    }

    pub(super) fn heal(&mut self) {
        self.plans.clear();
    }

    /// Counts the call and says what becomes of it.
    pub(super) fn decide(&mut self, site: Site, path: &Path, range: Option<(u64, u64)>) -> Verdict {
        let mut verdict = Verdict::Go;
        for plan in self.plans.iter_mut().filter(|plan| plan.selector.chooses(&site)) {
            plan.seen += 1;
            match plan.action {
                Action::Crash if plan.seen == plan.nth => verdict = Verdict::Crash,
                Action::Fail(fault, Times::Once) if plan.seen == plan.nth => verdict = Verdict::Fail(fault),
                Action::Fail(fault, Times::ForEver) if plan.seen >= plan.nth => verdict = Verdict::Fail(fault),
                Action::Crash | Action::Fail(..) => {}
            }
        }
        self.struck += u64::from(!matches!(verdict, Verdict::Go));
        if let Some(trace) = &mut self.trace {
            let fault = if let Verdict::Fail(fault) = verdict { Some(fault) } else { None };
            trace.push(Traced { site: site.clone(), path: path.to_owned(), range, fault });
        }
        *self.counts.entry(site).or_default() += 1;
        verdict
    }
}
