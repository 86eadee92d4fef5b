//! Which writes are covered by which sync: the arithmetic of overlapping `fdatasync` calls.
//!
//! ```text
//!   extent 7 |####synced####|===written===|   |==|     extent 8 |==|
//!                                         ^ a write in flight: nothing after it counts
//! ```
//!
//! A sync covers the longest contiguous prefix of writes that had finished before it began.
//! What lies in an extent counts only when all earlier extents are synced to their ends.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::store::Position;

use super::ExtentId;

/// The extents that are not wholly durable yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Window {
    extents: VecDeque<Extent>,
}

#[derive(Debug)]
struct Extent {
    id: ExtentId,
    /// Everything below is written.
    written: u32,
    /// Writes that finished before an earlier one did.
    early: SmallVec<[(u32, u32); 8]>,
    /// Everything below is synced.
    synced: u32,
    /// Where it ends; nothing will be written past it.
    end: Option<u32>,
}

impl Window {
    /// Writing begins at `start` of a new extent.
    pub(crate) fn open(&mut self, id: ExtentId, start: u32) {
        let early = SmallVec::new();
        self.extents.push_back(Extent { id, written: start, early, synced: start, end: None });
        self.advance();
    }

    /// No write goes past `end` of this extent.
    pub(crate) fn close(&mut self, id: ExtentId, end: u32) {
        if let Some(extent) = self.extent(id) {
            extent.end = Some(end);
        }
        self.advance();
    }

    /// The write of `start..end` has finished. Returns what a sync covers that begins now.
    pub(crate) fn written(&mut self, id: ExtentId, start: u32, end: u32) -> u32 {
        let Some(extent) = self.extent(id) else { return 0 };
        extent.early.push((start, end));
        while let Some(i) = extent.early.iter().position(|(start, _)| *start == extent.written) {
            extent.written = extent.early.swap_remove(i).1;
        }
        extent.written
    }

    /// A sync that covers everything below `covers` has succeeded.
    pub(crate) fn synced(&mut self, id: ExtentId, covers: u32) {
        if let Some(extent) = self.extent(id) {
            extent.synced = extent.synced.max(covers);
        }
        self.advance();
    }

    /// Everything below is durable; `None` if no extent is open.
    pub(crate) fn durable(&self) -> Option<Position> {
        self.extents.front().map(|extent| Position::new(extent.id, extent.synced))
    }

    /// Whether the extent is durable to its end.
    pub(crate) fn is_past(&self, id: ExtentId) -> bool {
        self.extents.iter().all(|extent| extent.id != id)
    }

    fn extent(&mut self, id: ExtentId) -> Option<&mut Extent> {
        self.extents.iter_mut().find(|extent| extent.id == id)
    }

    fn advance(&mut self) {
        // The last one stays: it says where "durable" is.
        while self.extents.len() > 1
            && self.extents.front().is_some_and(|extent| extent.end == Some(extent.synced))
        {
            self.extents.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a disk would have: each byte range written, and synced if its write had ended
    /// before a later successful sync of the same extent began.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fate {
        Writing,
        Written,
        Synced,
    }

    proptest! {
        /// Over random orders of ends of writes and syncs: "durable" never passes a write that
        /// no sync covers, and reaches everything once all is synced.
        #[test]
        fn durable_is_exactly_the_synced_prefix(
            sizes in proptest::collection::vec((1..9u32, any::<bool>()), 1..40),
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 400),
        ) {
            let mut window = Window::default();
            let mut groups = Vec::new();
            let (mut id, mut at) = (ExtentId(1), 0);
            window.open(id, 0);
            let mut opened = vec![id];
            for (size, new_extent) in sizes {
                if new_extent && at > 0 {
                    window.close(id, at);
                    id = ExtentId(id.0 + 1);
                    at = 0;
                    window.open(id, 0);
                    opened.push(id);
                }
                groups.push((id, at, at + size, Fate::Writing));
                at += size;
            }
            // A sync in flight: the extent, what the window said it covers, and what was
            // truly written when it began.
            let mut syncs: Vec<(ExtentId, u32, Vec<usize>)> = Vec::new();
            let mut last = Position(0);
            for pick in picks {
                let writing: Vec<usize> =
                    (0..groups.len()).filter(|i| groups[*i].3 == Fate::Writing).collect();
                let n = writing.len() + syncs.len();
                if n == 0 { break }
                let choice = pick.index(n);
                if let Some(i) = writing.get(choice) {
                    let (id, start, end, _) = groups[*i];
                    groups[*i].3 = Fate::Written;
                    let covers = window.written(id, start, end);
                    let truly = (0..groups.len())
                        .filter(|i| groups[*i].0 == id && groups[*i].3 == Fate::Written)
                        .collect();
                    syncs.push((id, covers, truly));
                } else {
                    let (id, covers, truly) = syncs.swap_remove(choice - writing.len());
                    for i in truly { groups[i].3 = Fate::Synced; }
                    window.synced(id, covers);
                }
                let durable = window.durable().unwrap();
                prop_assert!(durable >= last);
                last = durable;
                for (id, _, end, fate) in &groups {
                    if Position::new(*id, *end) <= durable {
                        prop_assert_eq!(*fate, Fate::Synced);
                    }
                }
            }
            let end = Position::new(id, at);
            if groups.iter().all(|g| g.3 != Fate::Writing) && syncs.is_empty() {
                prop_assert_eq!(window.durable().unwrap(), end, "the last sync covers all");
                for id in &opened[..opened.len() - 1] { prop_assert!(window.is_past(*id)); }
            }
        }
    }
}
