//! What must hold once a story has ended badly: the store opens, holds what it must, and goes on.

use super::history::{Fate, Form, History, Trouble};
use super::session::Session;
use ego_core::io::sim::{Crash, SimDoor};
use ego_core::log::LogOptions;

/// Opens what is left, compares, appends, loses power, and opens twice more: what was shown once stays.
pub(crate) fn survives(door: SimDoor, options: LogOptions, history: History) -> Result<(), Trouble> {
    door.heal();
    door.set_capacity(None);
    let mut s = Session::new(door, options, history, true);
    let _opened = s.open();
    s.verdict()?;
    s.append(0, &[24, 7]);
    s.append_form(1, Form { has_command: true, metadata: 5, ..Form::state(24) });
    s.append_form(9, Form::command(Some(24)));
    s.append(9, &[24]);
    s.note(0, 24);
    s.note(9, 24);
    s.settle();
    s.expect_last(Fate::Stored);
    s.look();
    let content = s.content();
    s.verdict()?;
    let left = s.door.after_crash(Crash::HARSH, 0);
    s.kill();
    s.door = left;
    for _ in 0..2 {
        let _opened = s.open();
        if s.content() != content {
            s.verdict()?;
            return Err(Trouble::wrong("two openings of one store differ"));
        }
        s.close();
        s.verdict()?;
    }
    Ok(())
}
