//! Who waits for an entity: a bounded queue, first come first served.
//!
//! A full mailbox gives back what it did not take. It holds no memory until somebody waits.

use std::collections::VecDeque;

/// The waiting messages of one entity.
#[derive(Debug)]
pub struct Mailbox<M> {
    /// Behind a pointer, since most entities have nobody who waits.
    #[expect(clippy::box_collection, reason = "a queue that is empty takes four times the place of a pointer")]
    waiting: Option<Box<VecDeque<M>>>,
}

/// A message that was not taken, because as many wait already as may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self { waiting: None }
    }
}

impl<M> Mailbox<M> {
    /// Puts a message behind those that wait, if fewer than `capacity` do.
    ///
    /// # Errors
    /// [`Full`], with the message.
    pub fn push(&mut self, message: M, capacity: usize) -> Result<(), Full<M>> {
        if self.len() >= capacity {
            return Err(Full(message));
        }
        self.waiting.get_or_insert_default().push_back(message);
        Ok(())
    }

    /// Takes the message that has waited longest.
    pub fn pop(&mut self) -> Option<M> {
        let waiting = self.waiting.as_mut()?;
        let message = waiting.pop_front();
        if waiting.is_empty() && waiting.capacity() > 64 {
            self.waiting = None;
        }
        message
    }

    /// Lets a message wait in front of all others, however many they are.
    pub fn put_back(&mut self, message: M) {
        self.waiting.get_or_insert_default().push_front(message);
    }

    /// Takes the first message that `wanted` accepts out of the queue; the others keep their order.
    pub fn take(&mut self, wanted: impl FnMut(&M) -> bool) -> Option<M> {
        let waiting = self.waiting.as_mut()?;
        let index = waiting.iter().position(wanted)?;
        waiting.remove(index)
    }

    /// The waiting messages, the one that has waited longest first.
    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.waiting.iter().flat_map(|waiting| waiting.iter())
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_in_the_order_in_which_they_came() {
        let mut mailbox = Mailbox::default();
        for n in 0..100 {
            mailbox.push(n, 100).unwrap();
        }
        assert_eq!(std::iter::from_fn(|| mailbox.pop()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let mut mailbox = Mailbox::default();
        mailbox.push("a", 1).unwrap();
        assert_eq!(mailbox.push("b", 1), Err(Full("b")));
        assert_eq!((mailbox.len(), mailbox.pop(), mailbox.pop()), (1, Some("a"), None));
    }

    #[test]
    fn a_message_taken_out_leaves_the_order_of_the_others() {
        let mut mailbox = Mailbox::default();
        for n in 0..4 {
            mailbox.push(n, 4).unwrap();
        }
        assert_eq!((mailbox.take(|&n| n == 1), mailbox.take(|&n| n == 9)), (Some(1), None));
        assert_eq!(mailbox.iter().copied().collect::<Vec<_>>(), [0, 2, 3]);
    }
}
