//! Who waits for an entity: a bounded queue, first come first served.
//!
//! A full mailbox gives back what it did not take. It holds no memory until somebody waits.

use std::collections::VecDeque;

/// The waiting messages of one entity.
#[derive(Debug)]
pub struct Mailbox<M> {
    waiting: VecDeque<M>,
}

/// A message that was not taken, because as many wait already as may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<M> Mailbox<M> {
    /// Puts a message behind those that wait, if fewer than `capacity` do.
    ///
    /// # Errors
    /// [`Full`], with the message.
    pub fn push(&mut self, message: M, capacity: usize) -> Result<(), Full<M>> {
        if self.waiting.len() >= capacity {
            return Err(Full(message));
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// Takes the message that has waited longest.
    pub fn pop(&mut self) -> Option<M> {
        let message = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > 64 {
            self.waiting = VecDeque::new();
        }
        message
    }

    /// Lets a message wait in front of all others, however many they are.
    pub fn put_back(&mut self, message: M) {
        self.waiting.push_front(message);
    }

    /// Takes the first message that `wanted` accepts out of the queue; the others keep their order.
    pub fn take(&mut self, wanted: impl FnMut(&M) -> bool) -> Option<M> {
        let index = self.waiting.iter().position(wanted)?;
        self.waiting.remove(index)
    }

    /// The waiting messages, the one that has waited longest first.
    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.waiting.iter()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
