//! Which events and states a follower wants. Decided on stored bytes, before anything is decoded.

use crate::journal::EntityKey;

/// What is let through: everything that meets all of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Stored names of the types of events and states; none for all.
    pub names: Option<Vec<Box<str>>>,
    /// Kinds of entities; none for all.
    pub kinds: Option<Vec<Box<str>>>,
    /// The one entity; none for all.
    pub entity: Option<EntityKey>,
    /// The one shard; none for all.
    pub shard: Option<u16>,
    /// Whether events are wanted.
    pub events: bool,
    /// Whether durable states are wanted.
    pub states: bool,
}

impl Default for Filter {
    /// Everything.
    fn default() -> Self {
        Self { names: None, kinds: None, entity: None, shard: None, events: true, states: true }
    }
}

/// Whose a unit is, and what it holds.
pub(crate) struct Owner<'a> {
    pub(crate) kind: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) shard: u16,
    pub(crate) is_state: bool,
}

impl Filter {
    /// Whether something of a unit can be let through.
    #[inline]
    pub(crate) fn takes_unit(&self, owner: &Owner<'_>) -> bool {
        (if owner.is_state { self.states } else { self.events })
            && self.shard.is_none_or(|shard| shard == owner.shard)
            && self.entity.as_ref().is_none_or(|e| e.id.as_bytes() == owner.id && e.kind.as_bytes() == owner.kind)
            && is_among(self.kinds.as_deref(), owner.kind)
    }

    /// Whether a type of this stored name is let through.
    #[inline]
    pub(crate) fn takes_name(&self, name: &[u8]) -> bool {
        is_among(self.names.as_deref(), name)
    }
}

#[inline]
fn is_among(wanted: Option<&[Box<str>]>, name: &[u8]) -> bool {
    wanted.is_none_or(|wanted| wanted.iter().any(|wanted| wanted.as_bytes() == name))
}
