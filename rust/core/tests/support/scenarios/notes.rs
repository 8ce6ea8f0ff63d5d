//! Stories of notes among units and alone.

use super::{Scenario, TINY, read_append_close, story};
use crate::support::history::Form;
use crate::support::session::Session;
use ego_core::io::sim::{Call, Fault, Selector, Times};
use ego_core::log::LogOptions;

/// Values of a few notes among units, some of them removed; some names long, some values over several pages.
fn notes_among_units(s: &mut Session, rounds: usize) {
    for round in 0..rounds {
        (0..4).for_each(|n| s.note(n, [10, 3_000, 0, 9_000][(n + round) % 4]));
        s.append_form(round % 3, Form::sort(round, &[60]));
        s.note(0, 20 + round);
        s.settle();
    }
}

pub(super) fn all() -> Vec<Scenario> {
    vec![
        story("notes", |s| {
            s.open()?;
            notes_among_units(s, 4);
            s.look();
            s.close();
            Ok(())
        }),
        story("notes-killed-before-the-kick", |s| {
            s.open()?;
            notes_among_units(s, 2);
            s.note(0, 30);
            s.note(1, 0);
            s.kill();
            read_append_close(s)
        }),
        story("notes-alone-when-idle", |s| {
            s.open()?;
            s.write(0, &[40]);
            for round in 0..3 {
                s.note(0, 30);
                s.note(round, 5_000 * (round % 2));
                s.settle_when_idle();
            }
            s.look();
            s.note(0, 7);
            s.close();
            read_append_close(s)
        })
        .with(|options| LogOptions { idle_mark_millis: 1, ..options }),
        story("notes-across-segments-and-checkpoints", |s| {
            s.open()?;
            notes_among_units(s, 8);
            s.kill();
            s.open()?;
            notes_among_units(s, 3);
            s.kill();
            read_append_close(s)
        })
        .with(|options| LogOptions {
            segment_bytes: TINY,
            max_unit_bytes: 20_000,
            checkpoint_bytes: 4_000,
            ..options
        }),
        story("notes-and-a-full-disk", |s| {
            s.open()?;
            s.expect_refusals();
            let free = s.blocks_free_after(4);
            s.door.set_capacity(Some(free));
            notes_among_units(s, 6);
            s.look();
            s.door.set_capacity(None);
            notes_among_units(s, 1);
            s.close();
            read_append_close(s)
        })
        .with(|options| LogOptions { segment_bytes: TINY, max_unit_bytes: 20_000, ..options }),
        story("notes-and-a-failed-sync", |s| {
            s.open()?;
            notes_among_units(s, 2);
            s.break_call(Selector::call(Call::Datasync).by("ego-committer"), Fault::Eio, Times::Once);
            s.note(0, 5_000);
            s.note(1, 0);
            s.settle();
            s.note(0, 6);
            s.look();
            s.close();
            s.mended();
            read_append_close(s)
        }),
    ]
}
