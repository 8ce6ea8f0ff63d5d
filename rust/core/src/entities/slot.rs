//! One live entity: what is in memory of it, and whose turn it is.
//!
//! At most one holder has the turn. Whoever enters an idle slot takes the content out and puts it back; everybody else
//! waits in the mailbox, and the holder runs those before letting go. A slot that was reset has a new generation, and
//! content of an older generation is not put back.

use super::mailbox::{Full, Mailbox};

/// The slot of one entity, with content `S` and waiting messages `M`.
#[derive(Debug)]
pub struct Slot<S, M> {
    content: Option<S>,
    mailbox: Mailbox<M>,
    generation: u32,
    taken: bool,
}

/// What entering a slot gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<S> {
    /// The turn, and what is in memory.
    Live(S),
    /// The turn; nothing is in memory.
    Cold,
    /// Somebody else has the turn.
    Taken,
}

impl<S, M> Default for Slot<S, M> {
    fn default() -> Self {
        Self { content: None, mailbox: Mailbox::default(), generation: 0, taken: false }
    }
}

impl<S, M> Slot<S, M> {
    /// Takes the turn, if it is free, and the content with it.
    pub fn enter(&mut self) -> Entry<S> {
        if self.taken {
            return Entry::Taken;
        }
        self.taken = true;
        self.content.take().map_or(Entry::Cold, Entry::Live)
    }

    /// For the holder of the turn: takes the content out again.
    pub fn take(&mut self) -> Option<S> {
        self.content.take()
    }

    /// For the holder of the turn: puts the content back and keeps the turn. Content of another generation is given back.
    pub fn put(&mut self, content: S, generation: u32) -> Option<S> {
        if generation != self.generation {
            return Some(content);
        }
        self.content.replace(content)
    }

    /// For the holder of the turn: the next message, or none, and then the turn is free.
    pub fn next_or_leave(&mut self) -> Option<M> {
        let next = self.mailbox.pop();
        self.taken = next.is_some();
        next
    }

    /// Forgets what is in memory and starts a new generation. The turn and the mailbox stay as they are.
    pub fn reset(&mut self) -> Option<S> {
        self.generation = self.generation.wrapping_add(1);
        self.content.take()
    }

    /// Counts the resets.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What is in memory, while nobody has taken it out.
    #[must_use]
    pub fn content(&self) -> Option<&S> {
        self.content.as_ref()
    }

    /// The same, to be changed.
    pub fn content_mut(&mut self) -> Option<&mut S> {
        self.content.as_mut()
    }

    /// Whether somebody has the turn.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// Who waits for the turn.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox<M> {
        &self.mailbox
    }

    /// Lets a message wait for the turn, if fewer than `capacity` do.
    ///
    /// # Errors
    /// [`Full`], with the message.
    pub fn wait(&mut self, message: M, capacity: usize) -> Result<(), Full<M>> {
        self.mailbox.push(message, capacity)
    }

    /// For the holder of the turn: lets a message that it took out wait in front again.
    pub fn put_back(&mut self, message: M) {
        self.mailbox.put_back(message);
    }

    /// Takes the first waiting message that `wanted` accepts out of the mailbox.
    pub fn withdraw(&mut self, wanted: impl FnMut(&M) -> bool) -> Option<M> {
        self.mailbox.take(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_has_the_turn_and_the_others_wait() {
        let mut slot: Slot<u32, &str> = Slot::default();
        assert_eq!(slot.enter(), Entry::Cold);
        assert_eq!(slot.enter(), Entry::Taken);
        slot.wait("first", 8).unwrap();
        slot.wait("second", 8).unwrap();
        assert_eq!(slot.put(7, 0), None);
        assert_eq!((slot.next_or_leave(), slot.is_taken(), slot.take()), (Some("first"), true, Some(7)));
        assert_eq!(slot.put(8, 0), None);
        assert_eq!((slot.next_or_leave(), slot.next_or_leave(), slot.is_taken()), (Some("second"), None, false));
        assert_eq!(slot.enter(), Entry::Live(8));
    }

    #[test]
    fn a_message_that_is_put_back_is_the_next_one() {
        let mut slot: Slot<(), u32> = Slot::default();
        assert_eq!(slot.enter(), Entry::Cold);
        slot.wait(1, 2).unwrap();
        slot.wait(2, 2).unwrap();
        assert_eq!(slot.next_or_leave(), Some(1));
        slot.put_back(1);
        assert_eq!((slot.next_or_leave(), slot.next_or_leave(), slot.next_or_leave()), (Some(1), Some(2), None));
    }

    #[test]
    fn content_of_an_older_generation_is_not_put_back() {
        let mut slot: Slot<u32, ()> = Slot::default();
        assert_eq!(slot.enter(), Entry::Cold);
        let before = slot.generation();
        assert_eq!(slot.reset(), None);
        assert_eq!(slot.put(7, before), Some(7));
        assert_eq!((slot.content(), slot.is_taken()), (None, true));
        assert_eq!(slot.put(9, slot.generation()), None);
        assert_eq!(slot.content(), Some(&9));
    }

    #[test]
    fn a_withdrawn_message_is_never_run() {
        let mut slot: Slot<(), u32> = Slot::default();
        assert_eq!(slot.enter(), Entry::Cold);
        slot.wait(1, 2).unwrap();
        slot.wait(2, 2).unwrap();
        assert_eq!(slot.wait(3, 2), Err(Full(3)));
        assert_eq!(slot.withdraw(|&n| n == 1), Some(1));
        assert_eq!((slot.next_or_leave(), slot.next_or_leave()), (Some(2), None));
    }
}
