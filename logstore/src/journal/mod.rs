//! The journal: one sequence of entries of all segments of a disk, and the store itself.
//!
//! ```text
//!   extent  | header | group | group | … | footer |          a file, 256 MiB
//!   group   | header with `synced` | entry | entry | … | pad | what one write wrote
//!   entry   | header | digest | payload |
//!
//!   append ─► Arena (memory) ─► Group ─► write ─► Window (what is synced) ─► durable
//!   start  ─► scan ─► recovery (what is kept, cut, damaged)
//! ```
//!
//! Decisions are here and do no I/O; `store` acts on them.

pub(crate) mod arena;
pub(crate) mod core;
pub(crate) mod entries;
pub(crate) mod footer;
pub(crate) mod format;
pub(crate) mod fuzz;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod window;

use crate::store::Position;

/// An extent's number; also the generation that its groups and entries carry. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExtentId(pub(crate) u32);

/// What marks everything in an extent as its own: bytes of another file, or of an earlier use
/// of this one, don't pass for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentKey {
    pub(crate) id: ExtentId,
    /// Random; where every checksum of the extent begins.
    pub(crate) salt: u32,
}

/// What is in an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// Groups as they were appended.
    Journal,
    /// What was still alive of other extents, segment by segment; complete since it has its name.
    Rewritten,
}

impl Position {
    pub(crate) fn new(extent: ExtentId, at: u32) -> Self {
        Self(u64::from(extent.0) << 32 | u64::from(at))
    }

    pub(crate) fn extent(self) -> ExtentId {
        ExtentId(u32::try_from(self.0 >> 32).unwrap_or(u32::MAX))
    }

    /// Bytes from the start of the extent.
    pub(crate) fn at(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}

impl ExtentKey {
    /// The name says all that is needed to check the content, so a damaged header harms nothing.
    pub(crate) fn file_name(self, kind: ExtentKind) -> String {
        let prefix = match kind {
            ExtentKind::Journal => "j",
            ExtentKind::Rewritten => "r",
        };
        format!("{prefix}{:010}-{:08x}.extent", self.id.0, self.salt)
    }

    pub(crate) fn parse_name(name: &str) -> Option<(Self, ExtentKind)> {
        let stem = name.strip_suffix(".extent")?;
        let kind = match stem.get(..1)? {
            "j" => ExtentKind::Journal,
            "r" => ExtentKind::Rewritten,
            _ => return None,
        };
        let (id, salt) = stem.get(1..)?.split_once('-')?;
        let key =
            Self { id: ExtentId(id.parse().ok()?), salt: u32::from_str_radix(salt, 16).ok()? };
        (key.file_name(kind) == name).then_some((key, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strange_ones_are_not() {
        let key = ExtentKey { id: ExtentId(7), salt: 0xdead_0001 };
        for kind in [ExtentKind::Journal, ExtentKind::Rewritten] {
            assert_eq!(ExtentKey::parse_name(&key.file_name(kind)), Some((key, kind)));
        }
        for name in ["", "lock", "j7-1.extent", "j0000000007-dead0001.extent.tmp", "é.extent"] {
            assert_eq!(ExtentKey::parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn positions_order_by_extent_then_place() {
        let p = Position::new(ExtentId(3), 9);
        assert_eq!((p.extent(), p.at()), (ExtentId(3), 9));
        assert!(p < Position::new(ExtentId(4), 0));
    }
}
