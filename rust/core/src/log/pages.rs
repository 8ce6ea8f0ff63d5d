//! A list that grows without moving what is in it: no copy, no pause, and no room left behind.

const LEN: usize = 4096;

/// Values by number, in the order in which they came.
#[derive(Debug)]
pub struct Pages<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    /// Appends a value.
    pub fn push(&mut self, value: T) {
        match self.pages.last_mut() {
            Some(page) if page.len() < LEN => page.push(value),
            // The first page grows, so that a small list is small.
            last => {
                let mut page = Vec::with_capacity(if last.is_some() { LEN } else { 0 });
                page.push(value);
                self.pages.push(page);
            }
        }
    }

    /// The value of that number.
    #[must_use]
    #[inline]
    pub fn get(&self, number: usize) -> Option<&T> {
        self.pages.get(number / LEN)?.get(number % LEN)
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.pages.get_mut(number / LEN)?.get_mut(number % LEN)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * LEN + last.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_number_and_never_move() {
        let mut pages = Pages::default();
        assert_eq!(pages.len(), 0);
        (0..3 * LEN).for_each(|n| pages.push(n));
        let second: *const usize = pages.get(LEN).unwrap();
        (3 * LEN..9 * LEN + 1).for_each(|n| pages.push(n));
        assert_eq!((pages.len(), pages.get(9 * LEN), pages.get(9 * LEN + 1)), (9 * LEN + 1, Some(&(9 * LEN)), None));
        assert!(std::ptr::eq(second, pages.get(LEN).unwrap()));
        *pages.get_mut(7).unwrap() = 0;
        assert_eq!(pages.get(7), Some(&0));
    }
}
